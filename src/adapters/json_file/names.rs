//! What stores and subjects are called: in file names, by an injective encoding that no file system folds together, and
//! inside files.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::adapters::json_file::error::Fault;
use crate::base::name::{StoreName, Subject};

/// What a subject's files are of. It stands in each of them, in full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ids {
    pub(super) store: StoreName,
    pub(super) subject: Subject,
}

impl Ids {
    /// Refuses a file that says that it is of something else: it was moved there, or two long names have one hash.
    pub(super) fn check(&self, path: &Path, store: &str, name: &str) -> Result<(), Fault> {
        if store == self.store.as_str() && name == self.subject.name() {
            return Ok(());
        }
        Err(Fault::corrupt(path, format!("it is of {} {name:?} of store {store:?}", kind(&self.subject))))
    }
}

const EPOCH: &str = "EPOCH";

/// Longer encoded names are cut and hashed, so that every file name stays below 255 bytes, quarantine included.
const MAX_ENCODED: usize = 180;
/// Bytes of the encoded name that stay before the hash, for people.
const KEPT: usize = 100;

/// Names that Windows has devices under, whatever follows behind a dot, and those of files that stand beside stores.
fn is_reserved(name: &str) -> bool {
    let numbered = |device: &str| name.strip_prefix(device).is_some_and(|n| matches!(n.as_bytes(), [b'0'..=b'9']));
    matches!(name, "con" | "prn" | "aux" | "nul" | "lock") || numbered("com") || numbered("lpt")
}

/// Lower-case letters, digits, `_` and `-` stand for themselves; everything else is `%` and two hexadecimal digits a byte.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if plain && !(index == 0 && is_reserved(name)) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(encoded, "%{byte:02x}").ok();
        }
    }
    if encoded.len() <= MAX_ENCODED {
        return encoded;
    }
    // `+` is in no encoded name, so that a hashed one is never taken for another.
    encoded.truncate(KEPT);
    let half = |first: u8| farmhash::fingerprint64(&[&[first], name.as_bytes()].concat());
    write!(encoded, "+{:016x}{:016x}", half(0), half(1)).ok();
    encoded
}

/// The two words for the two kinds of subjects, in file names and inside files.
pub(super) fn kind(subject: &Subject) -> &'static str {
    match subject {
        Subject::Bucket(_) => "bucket",
        Subject::Channel(_) => "channel",
    }
}

pub(super) fn store_directory(root: &Path, store: &StoreName) -> PathBuf {
    root.join(encode(store.as_str()))
}

pub(super) fn epoch_file(root: &Path, store: &StoreName) -> PathBuf {
    store_directory(root, store).join(EPOCH)
}

pub(super) fn checkpoint_file(root: &Path, ids: &Ids) -> PathBuf {
    store_directory(root, &ids.store).join(format!("{}.{}.json", kind(&ids.subject), encode(ids.subject.name())))
}

pub(super) fn journal_file(root: &Path, ids: &Ids) -> PathBuf {
    store_directory(root, &ids.store).join(format!("{}.{}.jsonl", kind(&ids.subject), encode(ids.subject.name())))
}

/// Whether a store's directory keeps data in a file of this name: the epoch, checkpoints and journals, and what is in
/// quarantine. Temporary files and what others put there are none.
pub(super) fn is_stored(file: &str) -> bool {
    let subject = file.starts_with("bucket.") || file.starts_with("channel.");
    let (name, _) = file.split_once(".quarantine-").unwrap_or((file, ""));
    file == EPOCH || (subject && (name.ends_with(".json") || name.ends_with(".jsonl")))
}

/// Whether a store's directory has a journal in a file of this name.
pub(super) fn is_journal(file: &str) -> bool {
    is_stored(file) && file.ends_with(".jsonl") && !file.contains(".quarantine-")
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::name::{BucketName, ChannelId};

    /// Names that some file system takes for one another, for a path, or for a device.
    pub(in crate::adapters::json_file) fn torture() -> Vec<String> {
        let mut names: Vec<String> = [
            ".",
            "..",
            "...",
            "a",
            "A",
            "a.",
            "a ",
            " a",
            "a/b",
            "a\\b",
            "a:b",
            "../a",
            "/a",
            "/",
            "\\",
            "~",
            "-",
            "--",
            "_",
            "%",
            "%61",
            "%%",
            "a%2fb",
            "+",
            "a+b",
            "*",
            "?",
            "\"",
            "<",
            ">",
            "|",
            "'",
            "$HOME",
            "`x`",
            "a;b",
            "a&b",
            "#",
            "con",
            "CON",
            "Con",
            "con.txt",
            "prn",
            "aux",
            "nul",
            "com1",
            "COM1",
            "lpt9",
            "com10",
            "conin$",
            "lock",
            "LOCK",
            "lock.holder",
            "EPOCH",
            "epoch",
            "bucket.a",
            "channel.a",
            "a.json",
            "a.jsonl",
            "a.json.tmp",
            "a.quarantine-x",
            "caf\u{e9}",
            "cafe\u{301}",
            "CAF\u{c9}",
            "\u{2126}",
            "\u{3a9}",
            "\u{212b}",
            "\u{c5}",
            "A\u{30a}",
            "\u{df}",
            "ss",
            "\u{fb01}",
            "fi",
            "\u{131}",
            "i",
            "I",
            "\u{130}",
            "\u{202e}a",
            "\u{feff}a",
            "\u{200b}",
            "\u{1f600}",
            "\u{10ffff}",
            "a\u{a0}b",
            "a b",
        ]
        .map(str::to_owned)
        .into();
        names.extend(["a".repeat(128), "A".repeat(128), format!("{}b", "a".repeat(127)), "a".repeat(127)]);
        names.extend([format!("{}B", "A".repeat(127)), "\u{e9}".repeat(64), "e\u{301}".repeat(42), ".".repeat(128)]);
        names.extend(["A".repeat(60), "A".repeat(61), format!("{}a", "A".repeat(60)), "/".repeat(128)]);
        names
    }

    /// What the most forgiving file system makes of a name.
    fn folded(name: &str) -> String {
        name.trim_end_matches(['.', ' ']).to_lowercase()
    }

    #[test]
    fn no_two_names_have_one_file_and_none_has_a_path_or_a_device() {
        let mut seen: HashMap<String, String> = HashMap::new();
        for name in torture() {
            let encoded = encode(&name);
            assert!(encoded.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'%' | b'+')));
            assert!(!encoded.is_empty() && !is_reserved(&encoded) && encoded.len() <= MAX_ENCODED, "{encoded}");
            if let Some(other) = seen.insert(folded(&encoded), name.clone()) {
                panic!("{name:?} and {other:?} are both {encoded}");
            }
            let store = StoreName::new(&name).unwrap();
            for subject in
                [Subject::Bucket(BucketName::new(&name).unwrap()), Subject::Channel(ChannelId::new(&name).unwrap())]
            {
                let path = journal_file(Path::new("/root"), &Ids { store: store.clone(), subject });
                assert_eq!(path.components().count(), 4, "{path:?}");
                assert!(path.starts_with("/root"));
                let longest = path.file_name().unwrap().len() + ".quarantine-20260131T120000Z-100".len();
                assert!(longest < 255, "{path:?}");
            }
        }
    }

    #[test]
    fn the_encoding_stays_as_it_is() {
        assert_eq!(encode("users_2-b"), "users_2-b");
        assert_eq!(encode("Users.é"), "%55sers%2e%c3%a9");
        assert_eq!(encode("con"), "%63on");
        assert_eq!(encode(&"A".repeat(60)), "%41".repeat(60));
        let hashed = encode(&"A".repeat(61));
        assert_eq!(hashed, format!("{}%+fe843e2e9d526dab43faa6d2b60923dc", "%41".repeat(33)));
    }

    proptest! {
        #[test]
        fn different_names_have_different_files(a in "\\PC{1,40}", b in "\\PC{1,40}") {
            prop_assert_eq!(folded(&encode(&a)) == folded(&encode(&b)), a == b);
        }
    }
}
