//! What a journal looks like, and what is made of one that was cut short, damaged or written by halves. Were it wrong,
//! saved changes would be lost, or damaged ones be taken for sound.

use super::*;

fn ids() -> Ids {
    Ids { store: StoreName::new("shop").unwrap(), subject: Subject::Bucket(BucketName::new("users").unwrap()) }
}

/// A journal in memory, written as a file is.
struct Sheet {
    text: Vec<u8>,
    pen: Pen,
}

impl Sheet {
    fn new() -> Self {
        let header = Header { version: VERSION, generation: 3, follows: Some(0x0a1b_2c3d), dropped: false };
        let (text, pen) = fresh(&ids(), &header).unwrap();
        Self { text, pen }
    }

    fn patch(&mut self, patch: &Patch) {
        let at = usize::try_from(patch.at).unwrap();
        let end = at + patch.text.len();
        if self.text.len() < end {
            self.text.resize(end, 0);
        }
        self.text[at..end].copy_from_slice(&patch.text);
    }

    fn write(&mut self, change: &str, synced: bool) {
        let entry = self.pen.entry(&[change]).unwrap();
        if let Some(room) = &entry.room {
            self.patch(room);
        }
        self.patch(&entry.line);
        self.pen = entry.after;
        if synced {
            self.pen.synced = self.pen.next - 1;
        }
    }
}

fn read(text: &[u8]) -> Result<Lines<String>, Fault> {
    let path = Path::new("j");
    let (_, pen) = header(path, &ids(), text)?;
    lines(path, text, pen)
}

fn long(n: usize) -> String {
    format!("{n}:{}", "x".repeat(n * 97 % 1_900))
}

#[test]
fn lines_come_back_in_order_however_often_room_is_added() {
    let mut sheet = Sheet::new();
    for n in 0..60 {
        sheet.write(&long(n), n % 3 == 0);
        let back = read(&sheet.text).unwrap();
        assert_eq!(back.saves, (0..=n).map(long).collect::<Vec<_>>());
        assert_eq!(back.torn, None);
        assert_eq!((back.pen.at, back.pen.end, back.pen.next), (sheet.pen.at, sheet.pen.end, sheet.pen.next));
        assert_eq!(sheet.text.len() as u64, sheet.pen.end);
        assert_eq!(sheet.text.len() % 4_096, 0);
    }
}

#[test]
fn a_line_is_valid_json_and_says_what_it_attests() {
    let mut sheet = Sheet::new();
    sheet.write("a", true);
    sheet.write("b", true);
    let text = String::from_utf8(sheet.text.clone()).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect();
    assert_eq!((lines[0]["generation"].clone(), lines[0]["follows"].clone()), (3.into(), "0a1b2c3d".into()));
    assert_eq!((lines[2]["n"].clone(), lines[2]["synced"].clone()), (2.into(), 1.into()));
    assert_eq!(lines.last().unwrap()["end"], 4_096);
    let read = read(&sheet.text).unwrap();
    assert_eq!(
        part(&sheet.text, read.unattested.unwrap(), read.pen.at),
        text.lines().nth(2).unwrap().to_owned().as_bytes().iter().copied().chain([b'\n']).collect::<Vec<u8>>()
    );
}

#[test]
fn a_journal_that_is_cut_short_anywhere_is_refused() {
    let mut sheet = Sheet::new();
    for n in 0..5 {
        sheet.write(&long(n * 4), true);
    }
    assert!(sheet.text.len() > 4_096, "room was added");
    let (written, mark) = (usize::try_from(sheet.pen.at).unwrap(), sheet.text.len() - 64);
    // Within the room in between, some lengths of each sector.
    for length in
        (0..sheet.text.len()).filter(|at| *at < 700 || *at >= mark || at % 31 == 0 || at.abs_diff(written) < 9)
    {
        assert!(matches!(read(&sheet.text[..length]), Err(Fault::Corrupt { .. })), "length {length}");
    }
}

#[test]
fn a_flipped_bit_anywhere_loses_nothing_that_was_written() {
    let mut sheet = Sheet::new();
    for n in [1, 2, 3] {
        sheet.write(&long(n), true);
    }
    let (written, mark) = (usize::try_from(sheet.pen.at).unwrap(), sheet.text.len() - 64);
    // Of the room in between, some bytes of each sector.
    let bytes = (0..sheet.text.len()).filter(|at| *at < written || *at >= mark || at % 401 == 0);
    for bit in bytes.flat_map(|at| at * 8..at * 8 + 8) {
        let mut damaged = sheet.text.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(back) = read(&damaged) {
            assert_eq!(back.saves, [1, 2, 3].map(long), "bit {bit}");
        }
    }
    let last = usize::try_from(sheet.pen.at).unwrap() - 1;
    for at in last - 40..=last {
        let mut damaged = sheet.text.clone();
        damaged[at] ^= 4;
        assert!(matches!(read(&damaged), Err(Fault::Corrupt { line: Some(4), .. })), "byte {at} of the last line");
    }
}

#[test]
fn a_write_that_was_cut_off_anywhere_is_cut_and_nothing_before_it() {
    // Lines that end before, in and behind the old end mark, which has 31 bytes.
    for (before, end) in [(0, 900), (3_600, 4_065), (3_600, 4_066), (3_600, 4_080), (3_600, 4_096), (3_600, 5_200)] {
        let mut sheet = Sheet::new();
        sheet.write(&"b".repeat(before), true);
        let empty = sheet.pen.entry(&[""]).unwrap().after.at;
        let size = usize::try_from(end - empty).unwrap();
        let entry = sheet.pen.entry(&["y".repeat(size)]).unwrap();
        assert_eq!((entry.after.at, entry.room.is_some()), (end, end > 4_065));
        if let Some(room) = &entry.room {
            sheet.patch(room);
        }
        for length in 0..=entry.line.text.len() {
            let mut torn = Sheet { text: sheet.text.clone(), pen: sheet.pen.clone() };
            torn.patch(&Patch { at: entry.line.at, text: entry.line.text[..length].to_vec() });
            let back = read(&torn.text).unwrap_or_else(|fault| panic!("{before}, {size}, {length} bytes: {fault:?}"));
            assert_eq!(back.saves[0], "b".repeat(before));
            // Only the fill behind the line may be missing, or a newline that the old mark began with.
            let line = usize::try_from(entry.after.at - entry.line.at).unwrap();
            let whole = part(&torn.text, entry.line.at, entry.after.at) == &entry.line.text[..line];
            assert_eq!(back.saves.len() == 2, whole, "{before}, {size}, {length} bytes");
            if length == 0 || length == entry.line.text.len() {
                assert_eq!(back.torn, None, "{before}, {size}, {length} bytes");
            } else {
                assert!(back.torn.is_some() || whole, "{before}, {size}, {length} bytes");
            }
        }
    }
}

#[test]
fn a_sector_that_is_blank_again_is_noticed_by_what_attests_it() {
    let mut sheet = Sheet::new();
    for n in 0..20 {
        sheet.write(&long(n % 4), true);
    }
    let last = read(&sheet.text).unwrap().unattested.unwrap();
    let last = usize::try_from(last).unwrap();
    for at in (0..=last - 512).step_by(512) {
        let mut blank = sheet.text.clone();
        blank[at..at + 512].fill(FILL);
        let read = read(&blank);
        assert!(matches!(read, Err(Fault::Corrupt { .. })), "sector at {at}: {read:?}");
    }
}

#[test]
fn swapped_repeated_and_missing_lines_are_refused() {
    let mut sheet = Sheet::new();
    for text in ["a", "b", "c", "d"] {
        sheet.write(text, true);
    }
    let text = String::from_utf8(sheet.text.clone()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mark = text.trim_end().rfind('\n').unwrap();
    let order = |picked: &[usize]| -> Vec<u8> {
        let mut bytes: Vec<u8> = picked.iter().flat_map(|n| lines[*n].bytes()).collect();
        bytes.resize(mark, FILL);
        bytes.extend_from_slice(&sheet.text[mark..]);
        bytes
    };
    assert_eq!(read(&order(&[0, 1, 2, 3, 4])).unwrap().saves, ["a", "b", "c", "d"]);
    for picked in [&[0, 2, 1, 3, 4][..], &[0, 1, 1, 3, 4], &[0, 1, 2, 4, 4], &[0, 1, 3, 4], &[0, 2, 3, 4]] {
        let read = read(&order(picked));
        assert!(matches!(read, Err(Fault::Corrupt { .. })), "{picked:?}: {read:?}");
    }
}

#[test]
fn a_line_of_another_journal_is_no_line_of_this_one() {
    let mut sheet = Sheet::new();
    sheet.write("a", true);
    let header = Header { version: VERSION, generation: 4, follows: Some(0x0a1b_2c3d), dropped: false };
    let (text, pen) = fresh(&ids(), &header).unwrap();
    let mut other = Sheet { text, pen };
    let entry = sheet.pen.entry(&["b"]).unwrap();
    other.patch(&Patch { at: other.pen.at, text: entry.line.text });
    assert!(matches!(read(&other.text), Err(Fault::Corrupt { line: Some(2), .. })));
}

#[test]
fn unsynced_lines_of_which_any_sectors_are_missing_are_cut_at_the_first() {
    let mut dice = crate::base::disk::power_cut::image::Dice(11);
    for _ in 0..300 {
        let mut sheet = Sheet::new();
        sheet.write("kept", true);
        let before = sheet.text.clone();
        let synced = sheet.pen.clone();
        let count = usize::try_from(1 + dice.roll(8)).unwrap();
        for n in 0..count {
            // Room is synced as soon as it is added, and with it every line before.
            let entry = sheet.pen.entry(&[long(n)]).unwrap();
            if entry.room.is_some() {
                break;
            }
            sheet.write(&long(n), false);
        }
        let mut image = sheet.text.clone();
        for at in (0..image.len()).step_by(512) {
            if dice.roll(2) == 0 {
                image[at..at + 512].copy_from_slice(&before[at..at + 512]);
            }
        }
        let back = read(&image).unwrap();
        let all: Vec<String> = std::iter::once("kept".to_owned()).chain((0..count).map(long)).collect();
        assert!(all.starts_with(&back.saves) && back.saves.len() as u64 >= synced.next - 1, "{:?}", back.torn);
    }
}

#[test]
fn arbitrary_bytes_are_refused_without_a_panic() {
    let mut dice = crate::base::disk::power_cut::image::Dice(5);
    let mut sheet = Sheet::new();
    sheet.write("a", true);
    for _ in 0..500 {
        let mut text = sheet.text.clone();
        for _ in 0..1 + dice.roll(20) {
            let at = usize::try_from(dice.roll(text.len() as u64)).unwrap();
            let byte = u8::try_from(dice.roll(256)).unwrap();
            match dice.roll(3) {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => drop(text.remove(at)),
            }
        }
        if let Ok(back) = read(&text) {
            assert!(back.saves.is_empty() || back.saves == ["a"]);
        }
    }
}

#[test]
fn an_unknown_version_is_named_whether_or_not_its_seal_is_known() {
    let text = String::from_utf8(Sheet::new().text).unwrap().replace("\"version\":1", "\"version\":7");
    assert!(matches!(read(text.as_bytes()), Err(Fault::Version { found: 7, .. })));
}
