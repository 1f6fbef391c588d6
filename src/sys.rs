//! Calls the kernel: the only room that does. Its `unsafe` is all that there is, except one block of the binding.
//!
//! One thin function a call. What a filesystem or kernel does not have comes back as `Ok(None)` or
//! `false`, so that callers never match on an errno twice. `renameat2`, `statx`, `openat2` and
//! `getdents64` go by their system call number: glibc 2.17 and musl have no wrappers for them.
#![allow(unsafe_code)]

/// Tells the explorer of interleavings, for its traces, what the next call is about.
macro_rules! note {
    ($text:expr) => {
        #[cfg(test)]
        crate::explore::note(|| $text)
    };
}

mod attributes;
mod call;
mod content;
mod copy;
mod folder;
mod lock;
mod names;
mod open;
mod proc;
mod process;
mod stat;

pub(crate) use attributes::*;
pub(crate) use call::{cstring, errno, sleep};
pub(crate) use content::*;
pub(crate) use copy::*;
pub(crate) use folder::*;
pub(crate) use lock::*;
pub(crate) use names::*;
pub(crate) use open::*;
pub(crate) use proc::*;
pub(crate) use process::*;
pub(crate) use stat::*;
