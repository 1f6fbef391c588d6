//! `Guard`: what `File`, `Folder` and `Entry` have in common.

/// A guard that a [`Group`](crate::Group) takes: [`File`](crate::File), [`Folder`](crate::Folder) or
/// [`Entry`](crate::Entry), and no other type.
pub trait Guard: sealed::Guard {}

pub(crate) mod sealed {
    use std::os::fd::BorrowedFd;
    use std::path::Path;

    use crate::checkpoint::Checkpoint;
    use crate::committed::Committed;
    use crate::draft::Draft;
    use crate::error::Result;
    use crate::options::Options;

    /// What the guards do each in their own way.
    pub trait Guard: Sized {
        /// The name of the type.
        const NAME: &str;

        /// Opens a new version; `checkpoint` stops the copying of the present one.
        fn create_with(options: &Options<Self>, dir: BorrowedFd, path: &Path, checkpoint: Checkpoint) -> Result<Self>;

        /// Ends a draft of this kind by a commit.
        fn commit_draft(draft: Draft, checkpoint: Checkpoint) -> Result<Committed>;

        fn into_draft(self) -> Draft;
    }
}

/// The methods that all guards have. `$create` opens a new version for Rust; Python calls `create_with`.
macro_rules! guard {
    ($guard:ident, $commit:path, $create:ident) => {
        impl crate::guard::Guard for $guard {}

        impl crate::guard::sealed::Guard for $guard {
            const NAME: &str = stringify!($guard);

            fn create_with(
                options: &Options<Self>,
                dir: BorrowedFd,
                path: &Path,
                checkpoint: Checkpoint,
            ) -> Result<Self> {
                options.create_with(dir, path, checkpoint)
            }

            fn commit_draft(draft: Draft, checkpoint: Checkpoint) -> Result<Committed> {
                $commit(draft, checkpoint)
            }

            fn into_draft(self) -> Draft {
                self.draft
            }
        }

        impl $guard {
            /// Starts the options of a new version; see [`Options`].
            pub fn options() -> Options<$guard> {
                Options::new()
            }

            /// The path that was asked for.
            #[must_use]
            pub fn destination(&self) -> &Path {
                &self.draft.destination.path
            }

            /// Syncs, publishes, syncs the folder and removes what was displaced, as the durability asks.
            pub fn commit(self) -> Result<Committed> {
                $commit(self.draft, &mut checkpoint::go_on)
            }

            /// Discards the new version and reports what could not be removed; `Drop` does it silently.
            pub fn rollback(mut self) -> Result<()> {
                self.draft.discard(&mut checkpoint::go_on)
            }
        }

        impl Options<$guard> {
            /// Opens a new version of `path`; nothing is visible there until the commit.
            pub fn create(&self, path: impl AsRef<Path>) -> Result<$guard> {
                self.create_at(sys::CWD, path)
            }

            /// The same with a relative path starting from an open folder.
            pub fn create_at(&self, dir: impl AsFd, path: impl AsRef<Path>) -> Result<$guard> {
                self.$create(dir.as_fd(), path.as_ref(), &mut checkpoint::go_on)
            }
        }
    };
}
pub(crate) use guard;
