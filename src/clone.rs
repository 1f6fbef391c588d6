//! Clones: the copies that updates start from. A clone shares its content with the original where the filesystem can do
//! that (`FICLONE`). Elsewhere the kernel copies it, and holes stay holes. A clone has no hard link to a published
//! file.

mod content;
mod tree;

pub(crate) use content::content;
pub(crate) use tree::tree;
