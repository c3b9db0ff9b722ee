//! Random numbers from the system: identities, placement seeds, salts.

use std::io;

use crate::start_error::StartError;

/// 64 random bits.
pub(crate) fn random_u64() -> Result<u64, StartError> {
    let mut bytes = [0; 8];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match filled {
        Ok(8) => Ok(u64::from_ne_bytes(bytes)),
        Ok(_) => Err(StartError::Random(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(StartError::Random(error.into())),
    }
}
