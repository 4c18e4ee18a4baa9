//! The texts of the two files, read as they come, for fuzzing.

use std::fmt::Debug;
use std::path::Path;

use crate::adapters::json_file::journal::Header;
use crate::adapters::json_file::names::Ids;
use crate::adapters::json_file::seal::VERSION;
use crate::adapters::json_file::state::{BucketLine, BucketState, ChannelLine, ChannelState, State};
use crate::adapters::json_file::{checkpoint, journal, seal};
use crate::base::disk::power_cut::PowerCutDisk;
use crate::base::name::{BucketName, ChannelId, StoreName, Subject};
use crate::records::{BucketDelta, Metadata, Record};
use crate::sds::{ChannelMeta, HistoryUpdate, SdsMessage};

/// The journal and the checkpoint that these bytes are, if they are one, of a bucket and of a channel; as they are, and
/// with their checksums put right, so that what lies behind those is reached. Answers how many of the readings succeeded.
pub fn read(bytes: &[u8]) -> usize {
    let Some([bucket, channel]) = ids() else { return 0 };
    let texts = [bytes.to_vec(), sealed_lines(bytes), sealed_document(bytes)];
    texts.iter().map(|text| of::<BucketState>(&bucket, text) + of::<ChannelState>(&channel, text)).sum()
}

/// Whose files are read.
fn ids() -> Option<[Ids; 2]> {
    let store = StoreName::new("shop").ok()?;
    let subjects = [Subject::Bucket(BucketName::new("users").ok()?), Subject::Channel(ChannelId::new("room").ok()?)];
    Some(subjects.map(|subject| Ids { store: store.clone(), subject }))
}

fn of<S: State + PartialEq + Debug>(ids: &Ids, text: &[u8]) -> usize {
    let path = Path::new("file");
    let mut succeeded = 0;
    if let Ok((_, read)) = checkpoint::read::<S>(path, ids, text) {
        // What was read can be written again, and is the same then. Only a number that JSON cannot hold is not written.
        if let Some(again) = checkpoint_of(ids, &read.state) {
            let again = checkpoint::read::<S>(path, ids, &again).map(|(_, again)| again.state).ok();
            assert_eq!(again.as_ref(), Some(&read.state), "a checkpoint is not what was written");
        }
        succeeded += 1;
    }
    if let Ok((_, pen)) = journal::header(path, ids, text)
        && let Ok(lines) = journal::lines::<S::Stored>(path, text, pen)
    {
        let mut state = S::default();
        lines.saves.iter().for_each(|save| state.apply(S::line(save)));
        assert!(lines.pen.at <= lines.pen.end && lines.pen.end <= text.len() as u64);
        succeeded += 1;
    }
    succeeded
}

/// Each line with the checksum that fits it: the first on its own, the others continuing the first.
fn sealed_lines(bytes: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    let mut seed = None;
    if !bytes.starts_with(seal::LINE.as_bytes()) {
        return sealed;
    }
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (text, end) = line.strip_suffix(b"\n").map_or((line, &b""[..]), |text| (text, &b"\n"[..]));
        let members = seal::members(text).strip_suffix(b"}").unwrap_or_default();
        if text.starts_with(seal::LINE.as_bytes()) && !members.is_empty() {
            let line = seal::line(seed.unwrap_or(seal::ALONE), members);
            seed = seed.or_else(|| seal::open(seal::LINE, seal::ALONE, &line));
            sealed.extend(line);
        } else {
            sealed.extend_from_slice(text);
        }
        sealed.extend_from_slice(end);
    }
    sealed
}

fn sealed_document(bytes: &[u8]) -> Vec<u8> {
    let prefix = seal::DOCUMENT.as_bytes();
    let Some(rest) = bytes.strip_prefix(prefix).and_then(|rest| rest.get(8..)) else { return Vec::new() };
    let crc = crc32c::crc32c_append(seal::ALONE, rest.strip_prefix(b"\"").unwrap_or_default());
    [prefix, seal::digits(crc).as_bytes(), rest].concat()
}

/// Texts to begin from: both files of a bucket and of a channel, as the adapter writes them.
pub fn seeds() -> Vec<Vec<u8>> {
    let Some([bucket, channel]) = ids() else { return Vec::new() };
    let mut delta = BucketDelta::new(7, 3, 1);
    let fields = record! { "text": "a \" text", "number": 1.5, "bytes": &b"\xff"[..], "none": null };
    let metadata = Metadata { version: 1, created_at: 5, updated_at: 6, expires_at: Some(7) };
    delta.upserts = vec![Record::from_parts(1, 1, metadata, fields).into()];
    delta.deletes = vec![2.into(), "two".into()];
    let message = SdsMessage { message_id: "m".into(), content: (&b"\xff"[..]).into(), ..SdsMessage::default() };
    let update = HistoryUpdate::new(vec![message], vec!["gone".into()]);
    let meta = ChannelMeta { lamport_timestamp: 9, ..ChannelMeta::default() };
    let lines = [ChannelLine::Meta(&meta), ChannelLine::History(&update)];
    let mut seeds = files::<BucketState>(&bucket, &[BucketLine(&delta)]);
    seeds.extend(files::<ChannelState>(&channel, &lines));
    seeds
}

/// The checkpoint after these lines, and a journal that has them.
fn files<S: State>(ids: &Ids, lines: &[S::Line<'_>]) -> Vec<Vec<u8>> {
    let mut state = S::default();
    lines.iter().for_each(|line| state.apply(*line));
    let header = Header { version: VERSION, generation: 1, follows: Some(1), dropped: false };
    let journal = journal::fresh(ids, &header).and_then(|(mut text, pen)| {
        let line = pen.entry(lines)?.line;
        let at = usize::try_from(line.at).unwrap_or_default();
        for (old, new) in text.iter_mut().skip(at).zip(&line.text) {
            *old = *new;
        }
        Ok(text)
    });
    checkpoint_of(ids, &state).into_iter().chain(journal.ok()).collect()
}

fn checkpoint_of<S: State>(ids: &Ids, state: &S) -> Option<Vec<u8>> {
    let (disk, path) = (PowerCutDisk::default(), Path::new("/file"));
    checkpoint::write(&disk, path, ids, 1, "2026-01-31T12:00:00Z", state).ok()?;
    disk.contents(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_read_and_so_is_one_with_a_wrong_checksum() {
        let seeds = seeds();
        assert_eq!(seeds.len(), 4);
        for seed in seeds {
            // As it is and as put right; a text that is sealed in one way is none that is sealed in the other.
            assert_eq!(read(&seed), 2, "{:?}", String::from_utf8_lossy(&seed));
            let text = String::from_utf8(seed).unwrap();
            let (before, rest) = text.split_once("\": \"").or_else(|| text.split_once("\":\"")).unwrap();
            let between = if text.starts_with(seal::DOCUMENT) { "\": \"" } else { "\":\"" };
            let wrong = format!("{before}{between}00000000{}", &rest[8..]);
            assert_eq!(read(wrong.as_bytes()), 1, "{wrong:?}");
        }
    }
}
