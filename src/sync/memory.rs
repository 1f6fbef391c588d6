//! How much there is to be written to disks.

use std::path::Path;

use crate::sys;

/// What programs have changed and disks do not have yet, in MiB: an upper bound for any one filesystem. 0 if nobody says.
pub(super) fn dirty() -> u64 {
    #[cfg(test)]
    if let Some(pretended) = crate::faults::Pretended::now().dirty {
        return pretended;
    }
    let table = sys::read_file(Path::new("/proc/meminfo"));
    table.map_or(0, |table| sum(&String::from_utf8_lossy(&table)))
}

/// Adds up the lines of `proc_meminfo(5)`, which are in KiB.
fn sum(table: &str) -> u64 {
    let value = |line: &str| -> Option<u64> {
        let (name, value) = line.split_once(':')?;
        let counts = matches!(name, "Dirty" | "Writeback");
        value.split_whitespace().next().filter(|_| counts)?.parse().ok()
    };
    table.lines().filter_map(value).sum::<u64>() >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dirty_and_what_is_on_its_way_are_added_up() {
        let table = "MemTotal: 99 kB\nDirty:   2048 kB\nWriteback:    1024 kB\nWritebackTmp:   4096 kB\n";
        assert_eq!(sum(table), 3);
        assert_eq!(sum(""), 0);
    }
}
