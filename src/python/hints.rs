//! Python's words for what the hints of the core name.

use crate::error::Words;

pub(super) const PYTHON: Words = Words {
    overwrite: "pass overwrite=True",
    rename_over: "pass overwrite=True",
    follow_symlinks: "pass follow_symlinks=True",
    no_preserve: "pass preserve=False",
    publish_siblings: "pass siblings=\"publish\"",
    discard_siblings: "siblings=\"discard\"",
    full: "durability=\"full\"",
    ordered: "\"ordered\"",
    no_path_of_its_own: "Was it a tool that was given f.name? That is the destination: give it the path of atomik.path instead",
};
