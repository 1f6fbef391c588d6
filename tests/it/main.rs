//! What Rust users see, one binary: each test is a promise and ends with nothing left over.

mod errors;
mod file;
mod folder;
mod group;
mod options;
mod rename;
mod siblings;
mod snapshot;
mod test_folder;
mod update;
