//! Why the store cannot be written or read.

use rusqlite::ErrorCode;

/// Why a batch was not stored.
#[derive(Debug)]
pub enum Failure {
    /// The file is no database, or a broken one.
    Damaged(String),
    /// Full or read-only disk, a lock, a reader that stays, a foreign file.
    Later(String),
    /// More than the file may hold.
    TooLarge,
    /// No protobuf.
    Malformed,
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Failure {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Failure::Damaged(error.to_string()),
            _ => Failure::Later(error.to_string()),
        }
    }
}
