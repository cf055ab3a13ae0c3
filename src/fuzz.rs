//! Doors to parsers that are private to a room, for the fuzz targets and for nobody else.

pub use crate::auth::fuzz_key_set as key_set;
pub use crate::server::fuzz_caller as caller;
pub use crate::server::fuzz_chat_request as chat_request;
