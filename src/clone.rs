//! Clones: what an update starts from. Content is shared with the original where the filesystem can
//! (`FICLONE`), else copied by the kernel, holes kept; never by hard links to what is published.

mod content;
mod tree;

pub(crate) use content::content;
pub(crate) use tree::tree;
