//! What has not reached the medium yet, and which parts of it may have when the power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a medium writes as a whole.
const SECTOR: usize = 512;
/// Up to so many pending parts, all combinations of them are images.
const FEW: usize = 6;

/// One change that comes to last as a whole or not at all.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Directory(PathBuf),
    NoDirectory(PathBuf),
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
    RenameDirectory(PathBuf, PathBuf),
    Length { file: usize, length: usize },
    Bytes { file: usize, at: usize, bytes: Vec<u8> },
}

impl Change {
    /// The file whose sync makes it last.
    pub(super) fn file(&self) -> Option<usize> {
        match self {
            Self::Length { file, .. } | Self::Bytes { file, .. } => Some(*file),
            _ => None,
        }
    }

    /// The directory whose sync makes it last.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path)
            | Self::NoDirectory(path)
            | Self::Link(path, _)
            | Self::Unlink(path)
            | Self::Rename(_, path, _)
            | Self::RenameDirectory(_, path) => path.parent(),
            Self::Length { .. } | Self::Bytes { .. } => None,
        }
    }

    /// Follows a directory that has another name now.
    pub(super) fn moved(&mut self, from: &Path, to: &Path) {
        match self {
            Self::Directory(path) | Self::NoDirectory(path) | Self::Link(path, _) | Self::Unlink(path) => {
                *path = moved(path, from, to);
            }
            Self::Rename(old, new, _) | Self::RenameDirectory(old, new) => {
                (*old, *new) = (moved(old, from, to), moved(new, from, to));
            }
            Self::Length { .. } | Self::Bytes { .. } => {}
        }
    }
}

fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    path.strip_prefix(from).map_or_else(|_| path.to_path_buf(), |rest| to.join(rest))
}

/// A change that waits, and which others of the same call are enumerated together with it.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) part: u64,
    pub(super) change: Change,
}

/// Writes into a file, and answers the changes that this comes down to; of each, which part of the write it is: the new
/// length, the first sector, the last, or what is between. A sector comes to last with all that was written into it before.
pub(crate) fn write(file: usize, content: &mut Vec<u8>, at: usize, bytes: &[u8]) -> Vec<(u64, Change)> {
    let mut changes = Vec::new();
    let end = at + bytes.len();
    if end > content.len() {
        content.resize(end, 0);
        changes.push((0, Change::Length { file, length: end }));
    }
    for (old, new) in content.iter_mut().skip(at).zip(bytes) {
        *old = *new;
    }
    let (first, last) = (at / SECTOR, end.saturating_sub(1) / SECTOR);
    for sector in first..=last {
        let part = if sector == first {
            1
        } else if sector == last {
            3
        } else {
            2
        };
        let at = sector * SECTOR;
        let bytes = content.get(at..(at + SECTOR).min(content.len())).unwrap_or_default().to_vec();
        changes.push((part, Change::Bytes { file, at, bytes }));
    }
    changes
}

/// What is where.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) directories: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, usize>,
}

impl Names {
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Directory(path) => {
                self.directories.insert(path.clone());
            }
            Change::NoDirectory(path) => {
                self.directories.remove(path);
            }
            Change::Link(path, file) => {
                self.files.insert(path.clone(), *file);
            }
            Change::Unlink(path) => {
                self.files.remove(path);
            }
            Change::Rename(from, to, file) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *file);
            }
            Change::RenameDirectory(from, to) => {
                let directories = std::mem::take(&mut self.directories);
                self.directories = directories.iter().map(|path| moved(path, from, to)).collect();
                let files = std::mem::take(&mut self.files);
                self.files = files.into_iter().map(|(path, file)| (moved(&path, from, to), file)).collect();
            }
            Change::Length { .. } | Change::Bytes { .. } => {}
        }
    }

    /// Whether a directory is there; the root always is.
    pub(super) fn has_directory(&self, path: &Path) -> bool {
        path.parent().is_none() || self.directories.contains(path)
    }

    /// Drops what cannot be reached from the root.
    pub(super) fn prune(&mut self) {
        let reachable = |path: &Path, all: &BTreeSet<PathBuf>| {
            path.ancestors().skip(1).all(|above| above.parent().is_none() || all.contains(above))
        };
        let all = self.directories.clone();
        self.directories.retain(|path| reachable(path, &all));
        self.files.retain(|path, _| reachable(path, &all));
    }
}

/// Applies what a change does to contents.
pub(crate) fn fill(contents: &mut [Vec<u8>], change: &Change) {
    match change {
        Change::Length { file, length } => {
            if let Some(content) = contents.get_mut(*file) {
                content.resize(*length, 0);
            }
        }
        Change::Bytes { file, at, bytes } => {
            let Some(content) = contents.get_mut(*file) else { return };
            // Bytes behind a length that did not come to last are out of reach.
            for (old, new) in content.iter_mut().skip(*at).zip(bytes) {
                *old = *new;
            }
        }
        _ => {}
    }
}

/// Which of `count` parts come to last: all combinations of few; of many, those that lack or have at most `strays` of
/// them.
pub(crate) fn selections(count: usize, strays: usize) -> Vec<Vec<bool>> {
    let strays = if count <= FEW { count } else { strays };
    let mut few: Vec<Vec<usize>> = vec![vec![]];
    let mut begin = 0;
    for _ in 0..strays {
        let end = few.len();
        for at in begin..end {
            let chosen = few.get(at).cloned().unwrap_or_default();
            for next in chosen.last().map_or(0, |last| last + 1)..count {
                few.push([chosen.as_slice(), &[next]].concat());
            }
        }
        begin = end;
    }
    let marks =
        |chosen: &[usize], mark: bool| -> Vec<bool> { (0..count).map(|part| chosen.contains(&part) == mark).collect() };
    let all: BTreeSet<Vec<bool>> = few.iter().flat_map(|chosen| [marks(chosen, true), marks(chosen, false)]).collect();
    all.into_iter().collect()
}

/// Splitmix64, so that an image is what its seed says.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_parts_come_in_all_combinations_and_many_with_few_strays() {
        assert_eq!(selections(0, 2), [Vec::<bool>::new()]);
        assert_eq!(selections(3, 0).len(), 8);
        // None, all, one that is ahead of ten and one that is behind ten.
        assert_eq!(selections(10, 1).len(), 2 + 10 + 10);
        assert_eq!(selections(10, 2).len(), 2 + 2 * (10 + 45));
    }

    #[test]
    fn a_write_comes_in_whole_sectors_and_its_length() {
        let mut content = vec![1; 600];
        let changes = write(0, &mut content, 500, &[7; 1_100]);
        assert_eq!((content.len(), content[499], content[500], content[1_599]), (1_600, 1, 7, 7));
        let sectors: Vec<(usize, usize)> = changes
            .iter()
            .filter_map(|(_, change)| match change {
                Change::Bytes { at, bytes, .. } => Some((*at, bytes.len())),
                _ => None,
            })
            .collect();
        assert_eq!(sectors, [(0, 512), (512, 512), (1_024, 512), (1_536, 64)]);
        assert!(matches!(changes[0], (0, Change::Length { length: 1_600, .. })));
        let parts: Vec<u64> = changes.iter().map(|(part, _)| *part).collect();
        assert_eq!(parts, [0, 1, 2, 2, 3]);
    }
}
