//! Trees of folders: walked, measured and removed, relative to descriptors.

mod measure;
mod removal;
mod walk;

pub(crate) use measure::measure;
pub(crate) use removal::{remove_below, remove_named};
pub(crate) use walk::{Visitor, walk};
