//! Roles, the operations that an actor can carry out, and mixes of them, written as text: `START[+]: ROLE ROLE …`.
//!
//! START is the state of the destination in the beginning; `+` says that all are in their bodies before the exploration
//! begins. `ROLE@2` lives in a second lock domain, `ROLE#1` is another user's.

use std::fmt;

use super::scheduler::Identity;
use super::strategy::Rng;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    Nothing,
    File,
    Folder,
    /// A folder of so many files that the core starts threads to clone and to remove it.
    Big,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Role {
    /// `write`, replacing.
    Write,
    /// `write`, refusing to replace.
    WriteNew,
    /// `File` with a body, refusing to replace.
    FileNew,
    File,
    FileUpdate,
    FileBackup,
    FileUpdateBackup,
    FileRolledBack,
    /// `Entry`, at which a tool makes a file.
    EntryFile,
    /// A group of the destination and a second one beside it.
    GroupFile,
    GroupFileRolledBack,
    FolderNew,
    Folder,
    FolderUpdate,
    FolderBackup,
    FolderUpdateBackup,
    /// Its clean-up runs in a thread in the background.
    FolderBackground,
    FolderRolledBack,
    /// `Entry`, at which a tool makes a folder.
    EntryFolder,
    /// A group of the destination and then a file beside it.
    GroupFolder,
    /// The file comes first: the slot has its name.
    GroupFolderSecond,
    GroupFolderRolledBack,
    /// Reads a snapshot.
    Reader,
    Sweep,
    /// Exchanges the destination and another name, as a user does.
    Exchange,
}

/// Roles of mixes whose destination is a file.
pub(super) const FILES: &[Role] = &[
    Role::Write,
    Role::WriteNew,
    Role::FileNew,
    Role::File,
    Role::FileUpdate,
    Role::FileBackup,
    Role::FileUpdateBackup,
    Role::FileRolledBack,
    Role::EntryFile,
    Role::GroupFile,
    Role::GroupFileRolledBack,
];
/// Roles of mixes whose destination is a folder.
pub(super) const FOLDERS: &[Role] = &[
    Role::FolderNew,
    Role::Folder,
    Role::FolderUpdate,
    Role::FolderBackup,
    Role::FolderUpdateBackup,
    Role::FolderBackground,
    Role::FolderRolledBack,
    Role::EntryFolder,
    Role::GroupFolder,
    Role::GroupFolderSecond,
    Role::GroupFolderRolledBack,
    Role::Reader,
];
/// Roles of both kinds of mixes.
pub(super) const FILES_AND_FOLDERS: &[Role] = &[Role::Sweep, Role::Exchange];

impl Role {
    pub(super) fn updates(self) -> bool {
        matches!(self, Self::FileUpdate | Self::FileUpdateBackup | Self::FolderUpdate | Self::FolderUpdateBackup)
    }

    pub(super) fn backs_up(self) -> bool {
        matches!(self, Self::FileBackup | Self::FileUpdateBackup | Self::FolderBackup | Self::FolderUpdateBackup)
    }

    pub(super) fn refuses_to_replace(self) -> bool {
        matches!(self, Self::WriteNew | Self::FileNew | Self::FolderNew)
    }

    pub(super) fn is_group(self) -> bool {
        let file = matches!(self, Self::GroupFile | Self::GroupFileRolledBack);
        file || matches!(self, Self::GroupFolder | Self::GroupFolderSecond | Self::GroupFolderRolledBack)
    }

    pub(super) fn is_rolled_back(self) -> bool {
        let group = matches!(self, Self::GroupFileRolledBack | Self::GroupFolderRolledBack);
        group || matches!(self, Self::FileRolledBack | Self::FolderRolledBack)
    }

    /// Does the role publish a version of its own if it succeeds?
    pub(super) fn publishes(self) -> bool {
        !self.is_rolled_back() && !matches!(self, Self::Reader | Self::Sweep | Self::Exchange)
    }

    /// Replaces a file by a plain rename, without the lock that updates take.
    pub(super) fn replaces_without_lock(self) -> bool {
        matches!(self, Self::Write | Self::File | Self::EntryFile | Self::Exchange)
    }

    pub(super) fn has_body(self) -> bool {
        !matches!(self, Self::Write | Self::WriteNew | Self::Sweep | Self::Exchange)
    }

    pub(super) fn is_of_folders(self) -> bool {
        FOLDERS.contains(&self)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let all = || FILES.iter().chain(FOLDERS).chain(FILES_AND_FOLDERS).copied();
        let names = || all().map(|role| format!("{role:?}")).collect::<Vec<_>>().join(" ");
        all()
            .find(|role| format!("{role:?}") == text)
            .ok_or_else(|| format!("no role {text:?}; there are: {}", names()))
    }
}

/// A role, and the lock domain and the user of its process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) identity: Identity,
}

/// The user id of `ROLE#1`, and so on.
const FIRST_USER: u32 = 60_000;

impl Part {
    fn parse(text: &str) -> Result<Self, String> {
        let (text, user) = text.split_once('#').map_or((text, None), |(text, user)| (text, Some(user)));
        let (text, domain) = text.split_once('@').map_or((text, None), |(text, domain)| (text, Some(domain)));
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("{text:?} is no number"));
        let identity = Identity {
            domain: domain.map(number).transpose()?.map(u64::from),
            user: user.map(number).transpose()?.map(|user| FIRST_USER + user),
        };
        Ok(Self { role: Role::parse(text)?, identity })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.role)?;
        if let Some(domain) = self.identity.domain.filter(|domain| *domain > 1) {
            write!(f, "@{domain}")?;
        }
        self.identity.user.map_or(Ok(()), |user| write!(f, "#{}", user - FIRST_USER))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mix {
    pub(super) start: Start,
    /// All are in their bodies before the exploration begins.
    pub(super) warm: bool,
    pub(super) parts: Vec<Part>,
}

impl Mix {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (start, parts) = text.split_once(':').ok_or_else(|| format!("no colon in the mix {text:?}"))?;
        let (start, warm) = start.trim().strip_suffix('+').map_or((start.trim(), false), |start| (start, true));
        let start = match start {
            "Nothing" => Start::Nothing,
            "File" => Start::File,
            "Folder" => Start::Folder,
            "Big" => Start::Big,
            other => return Err(format!("a mix begins with Nothing, File, Folder or Big, not {other:?}")),
        };
        let parts = parts.split_whitespace().map(Part::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { start, warm, parts }.with_domains())
    }

    /// Puts the other processes into the first domain, if one is in a second domain.
    fn with_domains(mut self) -> Self {
        if self.parts.iter().any(|part| part.identity.domain.is_some()) {
            for part in &mut self.parts {
                part.identity.domain.get_or_insert(1);
            }
        }
        self
    }

    /// Is the destination a folder, or will be one?
    pub(super) fn of_folders(&self) -> bool {
        match self.start {
            Start::Nothing => self.parts.iter().any(|part| part.role.is_of_folders()),
            Start::File => false,
            Start::Folder | Start::Big => true,
        }
    }

    /// Does every process see the locks of all others?
    pub(super) fn is_of_one_domain(&self) -> bool {
        self.parts.iter().all(|part| part.identity.domain == self.parts[0].identity.domain)
    }

    pub(super) fn has(&self, is: impl Fn(Role) -> bool) -> bool {
        self.parts.iter().any(|part| is(part.role))
    }

    /// Are there several users?
    pub(super) fn has_users(&self) -> bool {
        self.parts.iter().any(|part| part.identity.user.is_some())
    }

    /// Are there several lock domains?
    pub(super) fn has_domains(&self) -> bool {
        self.parts.iter().any(|part| part.identity.domain.is_some())
    }

    /// Two to four roles of one kind, by chance.
    pub(super) fn sample(rng: &mut Rng) -> Self {
        let folders = rng.below(2) == 0;
        let roles: Vec<Role> = if folders { FOLDERS } else { FILES }.iter().chain(FILES_AND_FOLDERS).copied().collect();
        let full = if folders { Start::Folder } else { Start::File };
        let start = rng.one_of(&[full, full, Start::Nothing]);
        let many = rng.one_of(&[2, 2, 3, 3, 4]);
        let part = |rng: &mut Rng| Part { role: rng.one_of(&roles), identity: Identity::default() };
        let mut parts: Vec<Part> = (0..many).map(|_| part(rng)).collect();
        let second = rng.below(many);
        match rng.below(6) {
            0 => parts[second].identity.domain = Some(2),
            1 => parts[second].identity.user = Some(FIRST_USER + 1),
            _ => {}
        }
        parts.sort();
        Self { start, warm: rng.below(4) == 0, parts }.with_domains()
    }

    /// Every pair of roles of one kind, on every start that makes a difference.
    pub(super) fn pairs() -> Vec<Self> {
        let mut pairs = Vec::new();
        for (roles, full) in [(FILES, Start::File), (FOLDERS, Start::Folder)] {
            let roles: Vec<Role> = roles.iter().chain(FILES_AND_FOLDERS).copied().collect();
            for start in [full, Start::Nothing] {
                for (index, one) in roles.iter().enumerate() {
                    for other in &roles[index..] {
                        let part = |role: Role| Part { role, identity: Identity::default() };
                        pairs.push(Self { start, warm: false, parts: vec![part(*one), part(*other)] });
                    }
                }
            }
        }
        pairs
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}:", self.start, if self.warm { "+" } else { "" })?;
        self.parts.iter().try_for_each(|part| write!(f, " {part}"))
    }
}
