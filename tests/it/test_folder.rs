//! A folder of a test's own, which reads like a story and ends without leftovers.

use std::path::{Path, PathBuf};

/// A temporary folder; dropping it asserts that nothing of atomik's is left in it.
pub(crate) struct TestFolder(tempfile::TempDir);

impl TestFolder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn with_file(self, name: &str, content: &str) -> Self {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        std::fs::write(self.at(name), content).unwrap();
        self
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap()
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

/// The name of this user's room for a destination.
pub(crate) fn room(destination: &str) -> String {
    format!(".atomik-u{}.{destination}~", nix::unistd::geteuid())
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

impl Drop for TestFolder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let left: Vec<_> = self.names().into_iter().filter(|name| name.starts_with(".atomik-")).collect();
            assert!(left.is_empty(), "left over: {left:?}");
        }
    }
}
