//! Why the store cannot be written or read.

use rusqlite::ErrorCode;

/// Why a batch was not stored.
#[derive(Debug)]
pub enum StoreFailure {
    /// The file is no database, or a broken one.
    Damaged(String),
    /// A read-only disk, a lock, a reader that stays, a foreign file.
    Later(String),
    /// The disk is, or the file is at its bound.
    Full(String),
    /// More than the file may hold.
    TooLarge,
    /// No protobuf.
    Malformed,
}

impl From<rusqlite::Error> for StoreFailure {
    fn from(error: rusqlite::Error) -> StoreFailure {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreFailure::Damaged(error.to_string()),
            Some(ErrorCode::DiskFull) => StoreFailure::Full(error.to_string()),
            _ => StoreFailure::Later(error.to_string()),
        }
    }
}
