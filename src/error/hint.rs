//! `Hint`: what an error says beside the system's answer, mostly a way out. Each sentence stands here once; how a language
//! writes an option stands in its [`Words`]: Rust's below, Python's in `python/hints.rs`.

/// How a language writes what hints name.
#[derive(Debug)]
pub(crate) struct Words {
    /// What is done to replace a destination.
    pub(crate) overwrite: &'static str,
    /// The same for the function `rename`.
    pub(crate) rename_over: &'static str,
    pub(crate) follow_symlinks: &'static str,
    pub(crate) no_preserve: &'static str,
    pub(crate) publish_siblings: &'static str,
    pub(crate) discard_siblings: &'static str,
    pub(crate) full: &'static str,
    pub(crate) ordered: &'static str,
    /// What is asked and advised where a tool may have got the destination's path for that of the new version.
    pub(crate) no_path_of_its_own: &'static str,
}

/// Rust's words.
pub(crate) const RUST: Words = Words {
    overwrite: "call .overwrite(true)",
    rename_over: "call rename with overwrite true",
    follow_symlinks: "call .follow_symlinks(true)",
    no_preserve: "call .preserve(false)",
    publish_siblings: "call .siblings(Siblings::Publish)",
    discard_siblings: ".siblings(Siblings::Discard)",
    full: "Durability::Full",
    ordered: "Durability::Ordered",
    no_path_of_its_own: "Was it a tool that was given the destination's path? Give it that of an Entry instead",
};

/// The enum, its sentences, and for tests a list of all. In braces: words of the language, or what the hint holds.
macro_rules! hints {
    ({ $($word:ident),+ } $($hint:ident $(($($held:ident),+))? => $sentence:literal,)+) => {
        /// What an error says beside the system's answer.
        #[derive(Clone, Debug)]
        pub(crate) enum Hint {
            $($hint $(($(hints!(@string $held)),+))?,)+
        }

        impl Hint {
            /// The sentence, in a language.
            pub(crate) fn text(&self, words: &Words) -> String {
                let Words { $($word),+ } = words;
                match self {
                    $(Self::$hint $(($($held),+))? => format!($sentence),)+
                }
            }

            /// Every hint, holding the names of what it holds.
            #[cfg(test)]
            pub(crate) fn all() -> Vec<Self> {
                vec![$(Self::$hint $(($(stringify!($held).to_owned()),+))?,)+]
            }
        }
    };
    (@string $held:ident) => { String };
}

hints! {
    {
        overwrite, rename_over, follow_symlinks, no_preserve, publish_siblings, discard_siblings, full, ordered,
        no_path_of_its_own
    }

    // Options.
    OverwriteRefused => "to forbid overwriting does not go with update and append, which replace the present version",
    SiblingsAlone => "to publish siblings does not go with update, backup or tmp_dir",

    // The path, and the folder of the destination.
    EmptyPath => "the path is empty",
    NoName => "its last component must be the name of a file or folder",
    SlashAfterFile => "a file's name does not end with a slash",
    SlashButNoFolder => "the path ends with a slash, but what is to be published is no folder",
    ReservedName => "names that begin with .atomik are the library's own, for what the next writer removes: choose another name",
    NoParent => "it must exist, be a folder and be searchable",
    UnreadableParent => "{full} must read the folder to sync it; use {ordered} or grant read permission",
    UnwritableParent => "it must be writable",
    UnwritableStaging => "the destination's folder must be writable, and a sandbox must allow to make and remove things there",
    NothingRenamed(attribute) => "the folder is {attribute} (see chattr(1)): nothing can be renamed in it",
    NothingNew(attribute) => "the folder is {attribute} (see chattr(1)): nothing new can stand in it",
    ParentReplaced => "the folder of the destination has been replaced or removed since this version was begun: begin again, in the one that is there now",
    OtherMount => "tmp_dir must be on the same mount as the destination: a rename does not cross mounts, even two of one filesystem",
    NotInherited => "what is made there cannot be given the group and default ACL of the destination's folder: leave tmp_dir out",
    StrangersSymlink => "the symlink is another user's, in a folder that all can write to",
    ForeignLock(name) => "another user's {name} stays; if no writer of theirs is running, remove it",

    // What is at the destination.
    Exists => "the destination exists; {overwrite} to replace it",
    MountPoint => "the destination is a mount point (a bind-mounted file or folder, in a container): publish a folder above it, or mount its parent folder",
    FolderByFile => "a folder is never replaced by a file",
    FileByFolder => "a file is never replaced by a folder",
    Special => "a device, FIFO or socket is never replaced",
    SymlinkToMount => "it is a symlink to a mount point, and is never replaced",
    SymlinkToSpecial => "it is a symlink to a device, FIFO or socket, and is never replaced: write to that itself",
    SymlinkBelowProc => "it is a symlink that leads below /proc (as /dev/stdout does), and such a symlink is never replaced: write to what it stands for",
    Fixed(attribute) => "the destination is {attribute} (see chattr(1))",
    Sticky => "in a sticky folder only the owner of the destination or of the folder may replace it",
    UnwritableFolder => "replacing another user's folder needs write permission on the folder itself",
    UnreadableAcl => "without /proc the ACL of a file that you may not read cannot be kept: mount /proc, or {no_preserve}",

    // Its backup.
    BackupElsewhere => "a backup stands beside the destination: give a name in the same folder",
    BackupIsDestination => "the backup cannot have the destination's own name",
    BackupAndTmpDir => "backup does not go with tmp_dir",
    BackupIsMount => "the backup is a mount point",
    BackupFixed(attribute) => "the backup is {attribute} (see chattr(1))",

    // The version that a body starts from.
    IsSymlink => "it is a symlink: {follow_symlinks}",
    NoFileAnyMore => "it is no file any more",
    NotCopied => "only files, folders, symlinks and FIFOs can be copied for an update",
    MountInside => "something is mounted there, which is not part of the version: unmount it, or build the folder anew",
    Conflict => "somebody else has published since this version was begun, or written to the file itself, and theirs stands: begin again from it",

    // What the filesystem or a sandbox cannot do.
    NoMoves => "a sandbox forbids moving between folders, which this publish needs (Landlock does without LANDLOCK_ACCESS_FS_REFER, which takes Linux 5.19): allow that for the destination's folder, or publish outside of the sandbox",
    NoExchangeOfFolders => "this filesystem (or sandbox) cannot exchange two folders; publish under a new name, or on a local filesystem",
    NoExchange => "this filesystem (or sandbox) cannot exchange two names, which a backup needs, and a group to take back",
    NoNoreplace => "this filesystem (or sandbox) cannot rename without replacing: {overwrite}, for which plain rename is enough, or publish on a local filesystem",
    NoNoreplaceNorLinks => "this filesystem (or sandbox) has neither RENAME_NOREPLACE nor hard links: {overwrite}, for which plain rename is enough",
    NoSymlinks => "this filesystem has no symlinks, which a backup needs",
    LowerFolder => "the folder belongs to a lower layer of an overlay (a container image) and cannot be moved: publish under a new name, or on a volume",

    // The publish.
    NotPublished => "it was not published, and the destination is untouched",
    Nothing(name, found) => "nothing was written at the staging path, whose last component must stay {name}{found}",
    Unpublishable => "only a file that its owner can open, a folder or a symlink can be published",
    SiblingsLeft(name, siblings) => "the tool has left these beside {name}, which would be lost: {siblings}. Let it finish and close them, {publish_siblings} to publish them too, or {discard_siblings}",
    WrittenByName => "something else has written to the destination while the body ran, and the new version is empty; what was written stands. {no_path_of_its_own}",
    Appeared => "the destination appeared meanwhile; {overwrite} to replace it",
    FolderAppeared => "a folder has appeared at the destination meanwhile, and this filesystem cannot exchange two folders",
    KeepsChanging => "the destination keeps appearing and vanishing",
    LowerLayer => "the destination belongs to a lower layer of an overlay (a container image), or to another mount: publish to a folder that was made in this container, or to a volume",
    InUse => "the destination is a mount point or in use: publish a folder above it, or mount its parent folder",
    OpenOnServer => "a server of CIFS replaces no file that a program has open: try again when it is closed",
    NoPublish => "this filesystem (or sandbox) cannot publish without a moment in which the destination is missing or could be lost",
    NotReplaceable => "the destination may not be replaced: look at its attributes, at the sticky bit and the permissions of its folder, and at what a sandbox allows there",
    ParentGone => "the destination's folder has been removed, or there is nothing to publish",
    OldMayReturn => "the new version is published, but a power cut may bring the old one back",
    ModeMayGo => "the new version is published, but a power cut may take its mode, or bring the old one back",
    Stays(path) => "what is left in {path} is removed by the next writer that can",

    // A group.
    NotForGroup => "a group takes no update, backup or tmp_dir: commit that one by itself",
    InGroup => "it is in this group already",
    HoldsMember => "it holds a destination that is in this group: write that one into its staging instead",
    InsideMember => "it lies in a destination that is in this group: write it into the staging of that one instead",
    MemberFolderGone => "the folder that was there when it was added has been moved or removed",
    TakenBack(number) => "the {number} published before it were taken back",
    NotTakenBack(members) => "these were published before it and could not be taken back, or somebody has replaced them: {members}",
    OldOnesMayReturn => "the new versions are published, but a power cut may bring old ones back",

    // A bare rename or exchange.
    RenameExists => "the destination exists; {rename_over} to replace it",
    FullFolder => "rename(2) replaces no folder that has entries; use exchange",
    RenameCrosses => "both must be on one mount, and a folder of an overlay's lower layer (a container image) cannot be moved",
    RenameMountPoint => "a mount point (a bind-mounted file or folder) cannot be renamed or replaced",
    NotInOneStep => "this filesystem cannot do that in one step",
    NotInOneStepHere => "this kernel, sandbox or filesystem cannot do that in one step",
    NoWhiteouts => "this filesystem makes no whiteouts",
    BothNames => "the file has its new name, and still its old one, too",

    // A snapshot.
    SnapshotOfFile => "only a folder needs a snapshot: a file that is open stays as it is",
    NoFolderLocks => "this filesystem cannot lock folders",
    FolderLocked => "another program holds a lock on the folder",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hint_for_rust_is_in_another_language() {
        let foreign =
            ["=True", "=False", "=\"", "atomik.", "f.name", "pass ", "\"full\"", "\"ordered\"", "--", "{", "}"];
        for hint in Hint::all() {
            let text = hint.text(&RUST);
            assert!(!text.is_empty() && !foreign.iter().any(|word| text.contains(word)), "{hint:?}: {text}");
        }
    }
}
