//! Logs and the names of metrics.
