mod files;
mod kit;
mod properties;
mod requests;
mod rights;
mod usage;
