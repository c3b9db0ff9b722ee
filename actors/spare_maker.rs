//! The spare maker: zeroes log segments ahead of need, on a thread of its own,
//! so that the log never waits for 64 MiB of zeroes.

use crossbeam_channel::Sender;
use datastore::persistence::{FileDisk, prepare_spare, ready_spares};
use datastore::settings::Settings;

use crate::start::spawn;
use crate::start_error::StartError;

/// Starts the thread; each message through the sender asks it to see that a spare is ready.
pub(crate) fn start(settings: &Settings) -> Result<Sender<()>, StartError> {
    let (wanted, requests) = crossbeam_channel::unbounded();
    let disk = FileDisk::open(&settings.data_dir)
        .map_err(|source| StartError::Directory { path: settings.data_dir.clone(), source })?;
    let bytes = settings.segment_bytes;
    spawn("spares", move || {
        let mut number = 0;
        while requests.recv().is_ok() {
            if ready_spares(&disk).is_ok_and(|ready| ready > 0) {
                continue;
            }
            number += 1;
            if let Err(error) = prepare_spare(&disk, number, bytes) {
                // The log makes its own segment when it must; the next request tries again.
                tracing::warn!(%error, "no spare log segment could be prepared");
            }
        }
    })?;
    Ok(wanted)
}
