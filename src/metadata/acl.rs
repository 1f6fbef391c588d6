//! POSIX ACLs as the kernel hands them out (`acl(5)`, `<linux/posix_acl_xattr.h>`). When an entry of an ACL cannot be
//! kept, the entries that then apply to its users are limited: no user has more rights than before.

const VERSION: u32 = 2;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// The id of an entry that needs none. The kernel also shows it for a user or group that has no number in the user
/// namespace of this process (`posix_acl_fix_xattr_to_user`), and refuses it in an ACL that is to be set.
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    rights: u16,
    id: u32,
}

impl Entry {
    fn is_named(self) -> bool {
        matches!(self.tag, USER | GROUP)
    }
}

/// The rights of users and groups: an ACL, or the permission bits of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads the value of the extended attribute; `None` if it is not understood.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let (version, entries) = value.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
            return None;
        }
        let entry = |entry: &[u8]| {
            let (tag, rest) = entry.split_first_chunk::<2>()?;
            let (rights, id) = rest.split_first_chunk::<2>()?;
            Some(Entry {
                tag: u16::from_le_bytes(*tag),
                rights: u16::from_le_bytes(*rights),
                id: u32::from_le_bytes(id.try_into().ok()?),
            })
        };
        entries.chunks_exact(8).map(entry).collect::<Option<Vec<_>>>().map(Self)
    }

    /// The value of the extended attribute.
    pub(super) fn value(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for Entry { tag, rights, id } in &self.0 {
            value.extend(tag.to_le_bytes());
            value.extend(rights.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    /// The rights that a mode gives.
    pub(super) fn of_mode(mode: u32) -> Self {
        let entry = |tag, shift: u32| Entry { tag, rights: u16::try_from(mode >> shift & 0o7).unwrap_or(0), id: NO_ID };
        Self(vec![entry(USER_OBJ, 6), entry(GROUP_OBJ, 3), entry(OTHER, 0)])
    }

    /// The mode that shows these rights: with a mask, its group bits are the mask.
    pub(super) fn mode(&self) -> u32 {
        let group = self.rights(MASK).or(self.rights(GROUP_OBJ));
        let bits = |rights: Option<u16>| u32::from(rights.unwrap_or(0) & 0o7);
        bits(self.rights(USER_OBJ)) << 6 | bits(group) << 3 | bits(self.rights(OTHER))
    }

    /// Has it entries that a mode cannot express?
    pub(super) fn is_more_than_a_mode(&self) -> bool {
        self.0.iter().any(|entry| entry.is_named() || entry.tag == MASK)
    }

    /// All but the owner's rights.
    pub(super) fn without_owner(mut self) -> Self {
        self.0.retain(|entry| entry.tag != USER_OBJ);
        self
    }

    fn rights(&self, tag: u16) -> Option<u16> {
        self.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.rights)
    }

    /// The rights of an entry that the mask allows.
    fn masked(&self, rights: u16) -> u16 {
        rights & self.rights(MASK).unwrap_or(0o7)
    }

    fn limit(&mut self, limit: u16, of: impl Fn(&Entry) -> bool) {
        for entry in self.0.iter_mut().filter(|entry| of(entry)) {
            entry.rights &= limit;
        }
    }

    /// Drops the entries of users and groups that have no number here.
    pub(super) fn drop_unnamable(&mut self) {
        self.drop_where(|entry| entry.is_named() && entry.id == NO_ID);
    }

    /// Drops the entries that a mode cannot express.
    pub(super) fn drop_named(&mut self) {
        self.drop_where(|entry| entry.is_named() || entry.tag == MASK);
    }

    fn drop_where(&mut self, dropped: impl Fn(&Entry) -> bool) {
        let gone: Vec<Entry> = self.0.iter().copied().filter(&dropped).collect();
        if gone.is_empty() {
            return;
        }
        for entry in gone.iter().filter(|entry| entry.is_named()) {
            let limit = self.masked(entry.rights);
            // The entries of groups and of all others apply to a dropped user now. The entry of all others applies to
            // the members of a dropped group; entries of other groups applied to them before as well.
            let user = entry.tag == USER;
            self.limit(limit, |heir| heir.tag == OTHER || user && matches!(heir.tag, GROUP_OBJ | GROUP));
        }
        let mask = self.masked(0o7);
        self.0.retain(|entry| !dropped(entry));
        // Without named entries there is no mask, and the group's entry shows in the mode as it is.
        if !self.0.iter().any(|entry| entry.is_named()) {
            self.limit(mask, |entry| entry.tag == GROUP_OBJ);
            self.0.retain(|entry| entry.tag != MASK);
        }
    }

    /// Limits the entries that now apply to the owner `old`, since this owner could not be kept.
    pub(super) fn lose_owner(&mut self, old: u32) {
        let limit = self.rights(USER_OBJ).unwrap_or(0);
        self.limit(limit, |heir| match heir.tag {
            GROUP_OBJ | GROUP | OTHER => true,
            USER => heir.id == old,
            _ => false,
        });
    }

    /// Limits the rights of the new group and of all others, since the old group could not be kept. The new group gets
    /// no more than all others have, nor than any named group: its members may be in a named group, too. The entry of
    /// all others now applies to the members of the old group.
    pub(super) fn lose_group(&mut self) {
        let (group, others) = (self.rights(GROUP_OBJ).unwrap_or(0), self.rights(OTHER).unwrap_or(0));
        let both = self.masked(group) & others;
        let named = self.0.iter().filter(|entry| entry.tag == GROUP);
        let all = named.fold(both, |all, entry| all & self.masked(entry.rights));
        self.limit(all, |heir| heir.tag == GROUP_OBJ);
        self.limit(both, |heir| heir.tag == OTHER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl(entries.iter().map(|&(tag, rights, id)| Entry { tag, rights, id }).collect())
    }

    /// The rights of a user, who may be the owner, in these groups.
    fn granted(acl: &Acl, owner: u32, group: u32, user: u32, groups: &[u32]) -> u16 {
        if user == owner {
            return acl.rights(USER_OBJ).unwrap();
        }
        if let Some(entry) = acl.0.iter().find(|entry| entry.tag == USER && entry.id == user) {
            return acl.masked(entry.rights);
        }
        let in_group = |entry: &&Entry| match entry.tag {
            GROUP_OBJ => groups.contains(&group),
            GROUP => groups.contains(&entry.id),
            _ => false,
        };
        let mine: Vec<_> = acl.0.iter().filter(in_group).collect();
        if mine.is_empty() {
            return acl.rights(OTHER).unwrap();
        }
        // The kernel grants a request that one of the entries allows: their union can be asked for right by right.
        mine.iter().fold(0, |all, entry| all | acl.masked(entry.rights))
    }

    /// All ACLs with a named user and a named group, of few rights each.
    fn many() -> impl Iterator<Item = Acl> {
        let rights = [0_u16, 2, 4, 6];
        (0..4_usize.pow(6)).map(move |number| {
            let of = |place: u32| rights[number / 4_usize.pow(place) % 4];
            acl(&[
                (USER_OBJ, of(0), NO_ID),
                (USER, of(1), 10),
                (GROUP_OBJ, of(2), NO_ID),
                (GROUP, of(3), 20),
                (MASK, of(4), NO_ID),
                (OTHER, of(5), NO_ID),
            ])
        })
    }

    const USERS: [u32; 3] = [1, 10, 11];
    const GROUPS: [&[u32]; 4] = [&[], &[2], &[20], &[2, 20]];

    fn assert_never_wider(before: &Acl, after: &Acl, owner: u32, group: u32) {
        for user in USERS {
            for groups in GROUPS {
                // The new owner is the writer of the content, and needs no right to learn it.
                if user == owner {
                    continue;
                }
                let (had, has) = (granted(before, 1, 2, user, groups), granted(after, owner, group, user, groups));
                assert_eq!(has & !had, 0, "user {user} in {groups:?}: {before:?} became {after:?}");
            }
        }
    }

    #[test]
    fn dropped_entries_give_nobody_more() {
        for before in many() {
            let mut without_names = before.clone();
            without_names.drop_named();
            assert!(!without_names.is_more_than_a_mode());
            assert_never_wider(&before, &without_names, 1, 2);
            assert_eq!(Acl::of_mode(without_names.mode()), without_names);
            for unnamable in [USER, GROUP] {
                let mut seen = before.clone();
                for entry in seen.0.iter_mut().filter(|entry| entry.tag == unnamable) {
                    entry.id = NO_ID;
                }
                seen.drop_unnamable();
                assert_never_wider(&before, &seen, 1, 2);
            }
        }
    }

    #[test]
    fn a_lost_owner_or_group_gives_nobody_more() {
        for before in many() {
            let (mut owner, mut group) = (before.clone(), before.clone());
            owner.lose_owner(1);
            assert_never_wider(&before, &owner, 99, 2);
            group.lose_group();
            assert_never_wider(&before, &group, 1, 20);
            assert_never_wider(&before, &group, 1, 21);
        }
    }

    #[test]
    fn entries_with_an_id_are_left_as_they_are() {
        for mut acl in many() {
            let before = acl.clone();
            acl.drop_unnamable();
            assert_eq!(acl, before);
            assert_eq!(Acl::parse(&acl.value()), Some(before));
        }
    }

    #[test]
    fn a_value_that_is_no_acl_is_not_understood() {
        for value in [&b""[..], b"\x02\0\0", b"\x01\0\0\0", b"\x02\0\0\0\x01\0"] {
            assert_eq!(Acl::parse(value), None);
        }
    }
}
