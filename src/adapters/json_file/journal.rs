//! A journal: the changes since a checkpoint, one sealed line per commit, in room that was made durable beforehand.
//!
//! Pure: texts in, texts out. The rules and why they hold after a power cut are in `docs/format.md`.

use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::adapters::json_file::error::{Fault, Refused, parse};
use crate::adapters::json_file::names::{Ids, kind};
use crate::adapters::json_file::seal::{self, VERSION, WITH_REQUESTS};
use crate::base::name::{BucketName, ChannelId, StoreName, Subject};

const FORMAT: &str = "ractor-persistence/json_file/journal";
/// Fills the room behind the last line. JSON has none in its compact form: inside of texts it is escaped.
const FILL: u8 = b'\t';
/// How every line with changes ends; no end mark does.
const LINE_END: &[u8] = b"]}\n";
/// What a medium writes as a whole.
const SECTOR: u64 = 512;
/// Files end at multiples of this, so that an end mark lies within one sector.
const PAGE: u64 = 4_096;
/// The most room that is added at once, beyond what a line needs.
const MAX_GROWTH: u64 = 256 * 1024;
/// No end mark is longer.
const MAX_MARK: u64 = 64;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Which lines there may be.
    pub(super) version: u64,
    /// The generation of the checkpoint that it continues; 0 for none.
    pub(super) generation: u64,
    /// That checkpoint's checksum.
    pub(super) follows: Option<u32>,
    /// The subject was dropped.
    pub(super) dropped: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderText {
    #[serde(rename = "crc")]
    _crc: IgnoredAny,
    format: String,
    version: u64,
    store: String,
    bucket: Option<String>,
    channel: Option<String>,
    generation: u64,
    follows: String,
    #[serde(default)]
    dropped: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<C> {
    #[serde(rename = "crc")]
    _crc: IgnoredAny,
    n: u64,
    synced: u64,
    changes: Vec<C>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark {
    #[serde(rename = "crc")]
    _crc: IgnoredAny,
    end: u64,
}

/// Where the next line of a journal goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pen {
    /// Which lines there may be.
    pub(super) version: u64,
    /// The header's checksum, which every line's continues.
    seed: u32,
    /// The number of the next line.
    pub(super) next: u64,
    /// The number of the last line that is known to be durable.
    pub(super) synced: u64,
    /// Where the next line begins.
    pub(super) at: u64,
    /// Where the end mark ends.
    pub(super) end: u64,
}

/// A text to write, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) at: u64,
    pub(super) text: Vec<u8>,
}

/// What writing a line takes.
#[derive(Debug)]
pub(super) struct Entry {
    /// More room, to be written and synced before the line is.
    pub(super) room: Option<Patch>,
    /// The line, and fill over what is left of the old end mark.
    pub(super) line: Patch,
    /// The pen afterwards.
    pub(super) after: Pen,
}

/// A journal that was read.
#[derive(Debug)]
pub(super) struct Lines<C> {
    /// The saves of all lines, in order.
    pub(super) saves: Vec<C>,
    pub(super) pen: Pen,
    /// Where the first line begins that no later one attests, if there is one.
    pub(super) unattested: Option<u64>,
    /// What had to be cut.
    pub(super) torn: Option<Torn>,
}

/// A tail that was never acknowledged at a level that survives what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Torn {
    /// The line, counted from 1 with the header.
    pub(super) line: u64,
    /// From where to where it goes in the file.
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The text of a whole journal without lines, and where the first one goes.
pub(super) fn fresh(ids: &Ids, header: &Header) -> Result<(Vec<u8>, Pen), Refused> {
    let quoted = |text: &str| serde_json::to_string(text).map_err(|_| Refused::Json);
    let members = format!(
        "\"format\":{},\"version\":{},\"store\":{},\"{}\":{},\"generation\":{},\"follows\":{}{}",
        quoted(FORMAT)?,
        header.version,
        quoted(ids.store.as_str())?,
        kind(&ids.subject),
        quoted(ids.subject.name())?,
        header.generation,
        quoted(&header.follows.map(seal::digits).unwrap_or_default())?,
        if header.dropped { ",\"dropped\":true" } else { "" },
    );
    let mut text = seal::line(seal::ALONE, members.as_bytes());
    let seed = seal::open(seal::LINE, seal::ALONE, &text).ok_or(Refused::Json)?;
    text.push(b'\n');
    let at = text.len() as u64;
    let end = (at + MAX_MARK).checked_next_multiple_of(PAGE).ok_or(Refused::TooLarge)?;
    text.extend(room(seed, at, end)?);
    Ok((text, Pen { version: header.version, seed, next: 1, synced: 0, at, end }))
}

/// A newline and the line that says where the file ends.
fn mark(seed: u32, end: u64) -> Vec<u8> {
    let mut text = vec![b'\n'];
    text.extend(seal::line(seed, format!("\"end\":{end}").as_bytes()));
    text.push(b'\n');
    text
}

/// Fill and an end mark, from one position to another.
fn room(seed: u32, from: u64, end: u64) -> Result<Vec<u8>, Refused> {
    let mark = mark(seed, end);
    let fill = end.checked_sub(from).and_then(|length| length.checked_sub(mark.len() as u64));
    let fill = fill.and_then(|fill| usize::try_from(fill).ok()).ok_or(Refused::TooLarge)?;
    let mut text = vec![FILL; fill];
    text.extend(mark);
    Ok(text)
}

impl Pen {
    /// Whether there is no line, and no more room than a new journal has.
    pub(super) fn is_fresh(&self) -> bool {
        self.next == 1 && self.end <= (self.at + MAX_MARK).next_multiple_of(PAGE)
    }

    /// What it takes to write a line with these saves.
    pub(super) fn entry<C: Serialize>(&self, saves: &[C]) -> Result<Entry, Refused> {
        let mut members = format!("\"n\":{},\"synced\":{},\"changes\":", self.next, self.synced).into_bytes();
        serde_json::to_writer(&mut members, saves).map_err(|_| Refused::Json)?;
        let mut text = seal::line(self.seed, &members);
        text.push(b'\n');
        let behind = self.at.checked_add(text.len() as u64).ok_or(Refused::TooLarge)?;
        let mut after = Self { next: self.next + 1, at: behind, ..self.clone() };
        let free = self.end.saturating_sub(mark(self.seed, self.end).len() as u64);
        let mut more = None;
        if behind > free {
            let growth = self.end.clamp(PAGE, MAX_GROWTH);
            let least = self.end.checked_add(growth).ok_or(Refused::TooLarge)?.max(behind.saturating_add(MAX_MARK));
            after.end = least.checked_next_multiple_of(PAGE).ok_or(Refused::TooLarge)?;
            more = Some(Patch { at: self.end, text: room(self.seed, self.end, after.end)? });
            // Nothing of the old mark may stay behind the line.
            let rest = usize::try_from(self.end.saturating_sub(behind)).map_err(|_| Refused::TooLarge)?;
            text.resize(text.len() + rest, FILL);
        }
        Ok(Entry { room: more, line: Patch { at: self.at, text }, after })
    }
}

/// Reads the header and checks that the journal is the one that it was opened for; answers where the lines begin.
pub(super) fn header(path: &Path, ids: &Ids, text: &[u8]) -> Result<(Header, Pen), Fault> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let seed = seal::open(seal::LINE, seal::ALONE, line);
    check_version(path, line)?;
    let corrupt = |reason: &str| Fault::corrupt_line(path, 1, reason);
    let Some(seed) = seed.filter(|_| line.len() < text.len()) else {
        return Err(corrupt("its checksum does not match: it was damaged, cut short or edited"));
    };
    let read: HeaderText = parse(line).map_err(|reason| corrupt(&reason))?;
    if read.format != FORMAT {
        return Err(corrupt(&format!("it has the format {:?}", read.format)));
    }
    let (bucket, channel) = (read.bucket.as_deref(), read.channel.as_deref());
    let name = if kind(&ids.subject) == "bucket" { bucket } else { channel };
    ids.check(path, &read.store, name.ok_or_else(|| corrupt("it is of another kind"))?)?;
    let follows = match read.follows.as_str() {
        "" => None,
        digits => Some(u32::from_str_radix(digits, 16).map_err(|_| corrupt("it follows no checksum"))?),
    };
    let at = line.len() as u64 + 1;
    let HeaderText { version, generation, dropped, .. } = read;
    let header = Header { version, generation, follows, dropped };
    Ok((header, Pen { version, seed, next: 1, synced: 0, at, end: at }))
}

/// Whose journal this says it is; `header` tells whether that is true.
pub(super) fn claimed_ids(path: &Path, text: &[u8]) -> Result<Ids, Fault> {
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    check_version(path, line)?;
    let ids = || {
        let read: HeaderText = parse(line).ok()?;
        let subject = match (read.bucket, read.channel) {
            (Some(bucket), None) => Subject::Bucket(BucketName::new(bucket).ok()?),
            (None, Some(channel)) => Subject::Channel(ChannelId::new(channel).ok()?),
            _ => return None,
        };
        Some(Ids { store: StoreName::new(read.store).ok()?, subject })
    };
    ids().ok_or_else(|| Fault::corrupt_line(path, 1, "it does not say whose journal it is"))
}

/// Refuses a journal of a version that is not known, intact or not.
fn check_version(path: &Path, line: &[u8]) -> Result<(), Fault> {
    match seal::claimed(line) {
        Some((format, found)) if format == FORMAT && !(VERSION..=WITH_REQUESTS).contains(&found) => {
            Err(Fault::Version { path: path.to_path_buf(), format, found, known: WITH_REQUESTS })
        }
        _ => Ok(()),
    }
}

/// A part of the text by its positions in the file.
fn part(text: &[u8], from: u64, to: u64) -> &[u8] {
    let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX).min(text.len());
    text.get(index(from)..index(to)).unwrap_or_default()
}

/// Reads all lines behind the header, `pen` being where it left off.
pub(super) fn lines<C: DeserializeOwned>(path: &Path, text: &[u8], mut pen: Pen) -> Result<Lines<C>, Fault> {
    let mut saves = Vec::new();
    let mut starts = Vec::new();
    // The header is line 1.
    while let Some(line) = part(text, pen.at, u64::MAX).split_inclusive(|byte| *byte == b'\n').next() {
        let Some(inner) = line.strip_suffix(b"\n").filter(|line| is_sealed(pen.seed, line)) else { break };
        if is_mark(inner) {
            break;
        }
        let read: Line<C> = parse(inner).map_err(|reason| Fault::corrupt_line(path, pen.next + 1, reason))?;
        if read.n != pen.next || read.synced >= read.n || read.synced < pen.synced {
            break;
        }
        saves.extend(read.changes);
        starts.push(pen.at);
        pen = Pen { next: pen.next + 1, synced: read.synced, at: pen.at + line.len() as u64, ..pen };
    }
    let Some((mark_start, end)) = find_end(text, &pen) else {
        return Err(Fault::corrupt(path, "its end mark is missing: it was cut short or damaged"));
    };
    pen.end = end;
    let tail = part(text, pen.at, mark_start);
    let torn = match judge(tail, &pen) {
        Verdict::Clean => None,
        Verdict::Torn => Some(Torn { line: pen.next + 1, from: pen.at, to: mark_start }),
        Verdict::Damaged => return Err(Fault::corrupt_line(path, pen.next + 1, "it was damaged or edited")),
    };
    let unattested = starts.get(usize::try_from(pen.synced).unwrap_or(usize::MAX)).copied();
    Ok(Lines { saves, pen, unattested, torn })
}

fn is_sealed(seed: u32, line: &[u8]) -> bool {
    seal::open(seal::LINE, seed, line).is_some()
}

fn is_mark(line: &[u8]) -> bool {
    seal::members(line).starts_with(b"\"end\":")
}

/// The first end mark that stands where it says: from where to where it goes.
fn find_end(text: &[u8], pen: &Pen) -> Option<(u64, u64)> {
    let mut at = pen.at;
    loop {
        let rest = part(text, at, u64::MAX);
        let start = at + rest.iter().position(|byte| *byte == b'\n')? as u64;
        let inner = part(text, start + 1, u64::MAX);
        let length = inner.iter().position(|byte| *byte == b'\n')?;
        let (line, end) = (inner.get(..length)?, start + 1 + length as u64 + 1);
        if is_sealed(pen.seed, line) && parse::<Mark>(line).is_ok_and(|mark| mark.end == end) {
            return Some((start, end));
        }
        at = start + 1;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    Torn,
    Damaged,
}

/// Judges what stands between the last good line and the end mark.
fn judge(tail: &[u8], pen: &Pen) -> Verdict {
    let Some(last) = tail.iter().rposition(|byte| *byte != FILL) else { return Verdict::Clean };
    let body = tail.get(..=last).unwrap_or_default();
    for line in body.split(|byte| *byte == b'\n') {
        let start = line.iter().position(|byte| *byte != FILL).unwrap_or(line.len());
        let line = line.get(start..).unwrap_or_default();
        if is_sealed(pen.seed, line) && parse::<Line<IgnoredAny>>(line).is_ok_and(|line| line.synced >= pen.next) {
            return Verdict::Damaged;
        }
    }
    // A write that was cut off has lost its end or at least one sector. What has lost neither was written whole, and has
    // changed since.
    if is_whole(body, pen) && !has_hole(body, pen.at) { Verdict::Damaged } else { Verdict::Torn }
}

/// Whether the last line of `body` has its end. What is left of an end mark that a line was being written over is none:
/// it has a digit where lines have a bracket.
fn is_whole(body: &[u8], pen: &Pen) -> bool {
    if body.ends_with(LINE_END) {
        return true;
    }
    if let [.., digit, b'}', b'\n'] = body
        && digit.is_ascii_digit()
    {
        return false;
    }
    // The damage may be in the end itself.
    let Some(but_end) = body.len().checked_sub(LINE_END.len()).and_then(|length| body.get(..length)) else {
        return false;
    };
    let last = but_end.split(|byte| *byte == b'\n').next_back().unwrap_or_default();
    let repaired = [last, LINE_END.strip_suffix(b"\n").unwrap_or_default()].concat();
    is_sealed(pen.seed, &repaired)
}

/// Whether a sector, as far as `body` lies in it, is nothing but fill.
fn has_hole(body: &[u8], at: u64) -> bool {
    let first = usize::try_from(SECTOR - at % SECTOR).unwrap_or(usize::MAX).min(body.len());
    let (first, rest) = body.split_at(first);
    let sector = usize::try_from(SECTOR).unwrap_or(usize::MAX);
    std::iter::once(first).chain(rest.chunks(sector)).any(|part| part.iter().all(|byte| *byte == FILL))
}

#[cfg(test)]
mod tests;
