//! Doors to parsers that are private to a room, for the fuzz targets and for nobody else.

pub use crate::server::fuzz_chat_request as chat_request;
