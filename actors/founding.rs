//! How a directory comes to belong to a cluster.
//!
//! ```text
//! empty directory, --peers, --role primary     founds the cluster of itself and its peers
//! empty directory, --peers, --role secondary   waits until the founder adopts it
//! a directory with a membership                is the member that it says, whatever the flags
//! a directory with data and no membership      stays on its own; with --peers it refuses to start
//! a node on its own, `add_member`              begins anew as the first of a cluster, with its data
//! ```
//!
//! Only an empty directory founds, since a founder that lost its data must not
//! take a new, empty cluster for the old one: it draws a new name for it, by
//! which its peers know it for a stranger.

use std::sync::Mutex;

use datastore::error::{Code, Error};
use datastore::persistence::{FileDisk, Identity, Member, Membership};
use datastore::replication::handshake::{PROTOCOL, PROTOCOL_MEMBERS};
use datastore::replication::reconfiguration::{ChangeError, founded_with};
use datastore::settings::{Settings, StartRole};

use crate::newcomer::Asker;
use crate::random::random_u64;
use crate::start_error::StartError;

/// Whether the node runs as a member of a cluster, or is to become one.
pub(crate) fn is_clustered(settings: &Settings, membership: Option<&Membership>) -> bool {
    membership.is_some() || !settings.peers.is_empty()
}

/// The directory's membership, made now where this node founds the cluster;
/// `None` where it has none, or waits for its founder.
pub(crate) fn membership(
    disk: &FileDisk,
    identity: &Identity,
    settings: &Settings,
    port: u16,
    holds_data: bool,
) -> Result<Option<Membership>, StartError> {
    if let Some(membership) = Membership::load(disk).map_err(StartError::Identity)? {
        check(&membership, identity, settings)?;
        return Ok(Some(membership));
    }
    if settings.peers.is_empty() {
        return Ok(None);
    }
    if holds_data {
        return Err(StartError::NotAMember);
    }
    if settings.role == StartRole::Secondary {
        tracing::info!("waiting to be adopted by the primary of this cluster");
        return Ok(None);
    }
    let membership = found(identity, settings, port)?;
    membership.store(disk).map_err(StartError::Identity)?;
    tracing::info!(cluster = membership.cluster, members = ?membership.node_ids(), "founded a cluster");
    Ok(Some(membership))
}

fn found(identity: &Identity, settings: &Settings, port: u16) -> Result<Membership, StartError> {
    let (cluster, founder) = (cluster_name()?, settings.node_id);
    let own = own_member(identity, settings, port);
    let peers = settings.peers.iter();
    let peers = peers.map(|peer| Member {
        node_id: peer.node_id,
        host: peer.host.clone(),
        port: peer.port,
        node: None,
    });
    let nodes = peers.chain([own]).collect();
    Ok(if settings.peer_protocol_max < PROTOCOL_MEMBERS {
        Membership::without_witness(cluster, founder, nodes)
    } else {
        Membership::new(cluster, founder, nodes)
    })
}

/// A node on its own, whose directory is open in this process, gets company: noted
/// durably, for its next start.
pub(crate) fn found_with(settings: &Settings, port: u16, member: Member) -> Result<(), Error> {
    let internal = |error: &dyn std::fmt::Display| Error::new(Code::Internal, error.to_string());
    if settings.peer_protocol_max < PROTOCOL_MEMBERS {
        let error = ChangeError::EarlierVersion(settings.node_id);
        return Err(Error::new(Code::BadRequest, error.to_string()));
    }
    if settings.truncate_damaged_log {
        let message =
            "a member's log is not cut (--truncate-damaged-log): start the node without that flag first";
        return Err(Error::new(Code::BadRequest, message));
    }
    // Several connections may ask at once, and the first one is answered. Nobody waits for its disk.
    static FOUNDING: Mutex<()> = Mutex::new(());
    let founding = "this node is adding another one already, to begin anew as the first of a cluster; ask again in a moment";
    let Ok(_founding) = FOUNDING.try_lock() else { return Err(Error::new(Code::Starting, founding)) };
    let disk = FileDisk::open(&settings.data_dir).map_err(|error| internal(&error))?;
    if Membership::load(&disk).map_err(|error| internal(&error))?.is_some() {
        return Err(Error::new(Code::Starting, founding));
    }
    let identity = Identity::load(&disk).map_err(|error| internal(&error))?;
    let identity = identity.ok_or_else(|| internal(&"the directory has no identity"))?;
    let cluster = cluster_name().map_err(|error| internal(&error))?;
    let own = own_member(&identity, settings, port);
    let refused = |error: ChangeError| Error::new(Code::BadRequest, error.to_string());
    let membership = founded_with(cluster, own, member.clone()).map_err(refused)?;
    let boot = random_u64().map_err(|error| internal(&error))?;
    let protocol = (PROTOCOL.0, settings.peer_protocol_max);
    Asker::alone(settings.node_id, identity.node, boot, protocol, settings.request_timeout_ms)
        .look_for(&member)?;
    membership.store(&disk).map_err(|error| internal(&error))
}

fn cluster_name() -> Result<String, StartError> {
    Ok(format!("{:016x}{:016x}", random_u64()?, random_u64()?))
}

fn own_member(identity: &Identity, settings: &Settings, port: u16) -> Member {
    let host = settings.host.to_string();
    Member { node_id: settings.node_id, host, port, node: Some(identity.node) }
}

/// The disk decides who is a member. Flags that say otherwise are a mistake of
/// the operator's, and one that is dangerous ends the start.
fn check(membership: &Membership, identity: &Identity, settings: &Settings) -> Result<(), StartError> {
    let node_id = settings.node_id;
    let is_this_directory = |member: &&Member| member.node == Some(identity.node);
    if let Some(own) = membership.configuration.nodes.iter().find(is_this_directory)
        && own.node_id != node_id
    {
        return Err(StartError::OtherNode { found: own.node_id, wanted: node_id });
    }
    if membership.member(node_id).is_none() {
        // Removed, and this node has heard of it; or another number than ever.
        return Err(StartError::NoMemberOf { node_id, members: membership.node_ids() });
    }
    let mut named: Vec<u64> = settings.peers.iter().map(|peer| peer.node_id).collect();
    named.push(node_id);
    named.sort_unstable();
    if !settings.peers.is_empty() && named != membership.node_ids() {
        tracing::warn!(
            members = ?membership.node_ids(),
            named = ?named,
            "--peers names other nodes than the directory's membership, which counts; members change by \
             add_member and remove_member, not by starting a node with other --peers"
        );
    }
    Ok(())
}
