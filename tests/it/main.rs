//! What Rust users see, one binary: each test is a promise and ends with nothing left over.

mod file;
mod folder;
mod group;
mod home;
mod rename;
mod siblings;
mod snapshot;
mod update;
