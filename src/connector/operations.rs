//! The operations of one request and one reply.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::call::{Call, Conditional, Prefixed, Read, Single, Write};
use super::results::{BulkEntry, BulkWritten, Copies, Entry, SnapshotMade};
use super::{DatastoreConnector, Error, Reply};

/// Operations whose result is one field of the reply.
macro_rules! one_field {
    ($($(#[$doc:meta])* $name:ident gives $output:ty, field $field:literal;)*) => { $(
        $(#[$doc])*
        pub struct $name;

        impl Single for $name {
            type Output = $output;

            fn read(reply: &Reply) -> Result<$output, Error> {
                #[derive(Deserialize)]
                struct Fields {
                    #[serde(rename = $field)]
                    field: $output,
                }
                Ok(reply.fields::<Fields>()?.field)
            }
        }
    )* };
}

/// Operations whose result is the whole reply.
macro_rules! all_fields {
    ($($(#[$doc:meta])* $name:ident gives $output:ty;)*) => { $(
        $(#[$doc])*
        pub struct $name;

        impl Single for $name {
            type Output = $output;

            fn read(reply: &Reply) -> Result<$output, Error> {
                reply.fields()
            }
        }
    )* };
}

one_field! {
    /// `ping`.
    Ping gives bool, field "pong";
    /// `set`.
    Set gives String, field "version";
    /// `delete`.
    Delete gives bool, field "deleted";
    /// `bulk_get`.
    BulkGet gives Vec<BulkEntry>, field "values";
    /// `bulk_delete`.
    BulkDelete gives u64, field "count";
    /// `add_vector`.
    AddVector gives String, field "version";
    /// `get_vector`.
    GetVector gives Option<Vec<f32>>, field "vector";
    /// `count`.
    Count gives u64, field "count";
    /// `promote`.
    Promote gives Value, field "leader";
    /// `add_member`.
    AddMember gives Value, field "members";
    /// `remove_member`.
    RemoveMember gives Value, field "members";
    /// `evict`.
    Evict gives Value, field "members";
}

all_fields! {
    /// `hello`.
    Hello gives Map<String, Value>;
    /// `bulk_set`.
    BulkSet gives BulkWritten;
    /// `stats`.
    Stats gives Map<String, Value>;
    /// `cluster`.
    Cluster gives Map<String, Value>;
    /// `snapshot`.
    Snapshot gives SnapshotMade;
    /// `conflicts`.
    Conflicts gives Map<String, Value>;
}

/// `get`, for the value alone.
pub struct Get<T>(PhantomData<fn() -> T>);

impl<T: DeserializeOwned + Send + 'static> Single for Get<T> {
    type Output = Option<T>;

    fn read(reply: &Reply) -> Result<Option<T>, Error> {
        Ok(GetEntry::<T>::read(reply)?.map(|entry| entry.value))
    }
}

/// `get`, for value and version.
pub struct GetEntry<T>(PhantomData<fn() -> T>);

impl<T: DeserializeOwned + Send + 'static> Single for GetEntry<T> {
    type Output = Option<Entry<T>>;

    fn read(reply: &Reply) -> Result<Option<Entry<T>>, Error> {
        #[derive(Deserialize)]
        struct Fields {
            found: bool,
        }
        if reply.fields::<Fields>()?.found { reply.fields().map(Some) } else { Ok(None) }
    }
}

impl Write for Set {}
impl Write for Delete {}
impl Write for AddVector {}
impl Write for BulkSet {}
impl Write for BulkDelete {}

impl Conditional for Set {}
impl Conditional for Delete {}
impl Conditional for AddVector {}

impl<T> Read for Get<T> {}
impl<T> Read for GetEntry<T> {}
impl Read for BulkGet {}
impl Read for GetVector {}
impl Read for Count {}
impl Prefixed for Count {}

impl Call<Set> {
    /// Only if the key has neither value nor vector; else `already_exists`.
    pub fn if_absent(self) -> Call<Set> {
        self.with("if_absent", true)
    }
}

impl<T> Call<Get<T>> {
    /// The newest of what so many members have (dynamo mode).
    pub fn r(self, copies: Copies) -> Call<Get<T>> {
        self.with("r", copies)
    }
}

impl<T> Call<GetEntry<T>> {
    /// The newest of what so many members have (dynamo mode).
    pub fn r(self, copies: Copies) -> Call<GetEntry<T>> {
        self.with("r", copies)
    }
}

impl Call<Stats> {
    /// One section alone.
    pub fn section(self, section: &str) -> Call<Stats> {
        self.with("section", section)
    }
}

impl Call<Promote> {
    /// This node instead of the one that is asked.
    pub fn node_id(self, node_id: u64) -> Call<Promote> {
        self.with("node_id", node_id)
    }

    /// Without a majority, giving up what only the others have.
    pub fn force(self) -> Call<Promote> {
        self.with("force", true)
    }
}

impl DatastoreConnector {
    /// Whether the node answers.
    pub fn ping(&self) -> Call<Ping> {
        Call::new(self, "ping")
    }

    /// What the node is: its role, mode, limits and features.
    pub fn hello(&self) -> Call<Hello> {
        Call::new(self, "hello")
            .with("protocol", 1)
            .with("client", concat!("datastore-rust/", env!("CARGO_PKG_VERSION")))
    }

    /// Writes a value; gives its version. The key's vector stays.
    pub fn set(&self, key: &str, value: &(impl Serialize + ?Sized)) -> Call<Set> {
        Call::new(self, "set").with("key", key).with("value", value)
    }

    /// The key's value, `None` when it has none. Ask for `Box<RawValue>` to get the text as it was written.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Call<Get<T>> {
        Call::new(self, "get").with("key", key)
    }

    /// The key's value with its version.
    pub fn get_entry<T: DeserializeOwned>(&self, key: &str) -> Call<GetEntry<T>> {
        Call::new(self, "get").with("key", key)
    }

    /// Removes value and vector; gives whether there was anything.
    pub fn delete(&self, key: &str) -> Call<Delete> {
        Call::new(self, "delete").with("key", key)
    }

    /// Writes up to 10,000 records, all or nothing.
    pub fn bulk_set<K: AsRef<str>, V: Serialize>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Call<BulkSet> {
        let records: Vec<(Text<K>, V)> = records.into_iter().map(|(key, value)| (Text(key), value)).collect();
        Call::new(self, "bulk_set").with("records", records)
    }

    /// The values of up to 10,000 keys, in the order asked.
    pub fn bulk_get<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Call<BulkGet> {
        Call::new(self, "bulk_get").with("keys", texts(keys))
    }

    /// Removes up to 10,000 keys, all or nothing; gives how many existed.
    pub fn bulk_delete<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Call<BulkDelete> {
        Call::new(self, "bulk_delete").with("keys", texts(keys))
    }

    /// Writes a vector; gives the key's version. The key's value stays.
    pub fn add_vector(&self, key: &str, vector: &[f32]) -> Call<AddVector> {
        Call::new(self, "add_vector").with("key", key).with("vector", vector)
    }

    /// The key's vector, `None` when it has none.
    pub fn get_vector(&self, key: &str) -> Call<GetVector> {
        Call::new(self, "get_vector").with("key", key)
    }

    /// How many keys there are.
    pub fn count(&self) -> Call<Count> {
        Call::new(self, "count")
    }

    /// The node's figures.
    pub fn stats(&self) -> Call<Stats> {
        Call::new(self, "stats")
    }

    /// Who is in the cluster, who leads, how far each one is.
    pub fn cluster(&self) -> Call<Cluster> {
        Call::new(self, "cluster")
    }

    /// Makes a snapshot now. It may take longer than the connector's `timeout`: its outcome is unknown then.
    pub fn snapshot(&self) -> Call<Snapshot> {
        Call::new(self, "snapshot")
    }

    /// Makes the node that is asked, or another one, the leader.
    pub fn promote(&self) -> Call<Promote> {
        Call::new(self, "promote")
    }

    /// Adds a node to the cluster.
    pub fn add_member(&self, node_id: u64, host: &str, port: u16) -> Call<AddMember> {
        Call::new(self, "add_member").with("node_id", node_id).with("host", host).with("port", port)
    }

    /// Takes a node out of the cluster.
    pub fn remove_member(&self, node_id: u64) -> Call<RemoveMember> {
        Call::new(self, "remove_member").with("node_id", node_id)
    }

    /// The last conflicts that were decided (dynamo mode).
    pub fn conflicts(&self) -> Call<Conflicts> {
        Call::new(self, "conflicts")
    }

    /// Gives a node up (dynamo mode).
    pub fn evict(&self, node_id: u64) -> Call<Evict> {
        Call::new(self, "evict").with("node_id", node_id)
    }
}

/// A key as JSON text, whatever type the caller has it in.
struct Text<K>(K);

impl<K: AsRef<str>> Serialize for Text<K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_ref())
    }
}

fn texts<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Vec<Text<K>> {
    keys.into_iter().map(Text).collect()
}
