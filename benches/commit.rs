//! How long a commit takes, by what is published and how durable it is: `cargo bench`.
//!
//! The files lie in `TMPDIR`: choose a filesystem there, a tmpfs to see the library's own share.

use atomik::Durability;
use divan::Bencher;
use std::fs;
use tempfile::TempDir;

const DURABILITIES: [Durability; 3] = [Durability::Full, Durability::Ordered, Durability::NoSync];
const FILES: usize = 100;
const CONTENT: [u8; 4096] = [b'x'; 4096];

fn main() {
    divan::main();
}

fn here() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[divan::bench(args = DURABILITIES)]
fn file_replaced(bencher: Bencher, durability: Durability) {
    let here = here();
    let path = here.path().join("file");
    let options = atomik::File::options().overwrite(true).durability(durability);
    bencher.bench_local(|| options.write(&path, CONTENT).expect("a commit"));
}

#[divan::bench(args = DURABILITIES, sample_count = 20)]
fn folder_of_100_files_replaced(bencher: Bencher, durability: Durability) {
    let here = here();
    let path = here.path().join("folder");
    let options = atomik::Folder::options().overwrite(true).durability(durability);
    bencher.bench_local(|| {
        let folder = options.create(&path).expect("a staging folder");
        for number in 0..FILES {
            fs::write(folder.path().join(number.to_string()), CONTENT).expect("a written file");
        }
        folder.commit().expect("a commit");
    });
}

/// What a commit is compared with: the same write, neither atomic nor durable.
#[divan::bench]
fn plain_write(bencher: Bencher) {
    let here = here();
    let path = here.path().join("file");
    bencher.bench_local(|| fs::write(&path, CONTENT).expect("a written file"));
}
