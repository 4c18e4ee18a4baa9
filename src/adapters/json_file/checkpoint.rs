//! A checkpoint: all of a bucket or channel, in one file that people can read.

use std::path::Path;

use crate::adapters::json_file::error::{Fault, Refused};
use crate::adapters::json_file::names::{Ids, kind};
use crate::adapters::json_file::seal::{self, VERSION};
use crate::adapters::json_file::state::{Checkpoint, State};
use crate::base::disk::{Disk, Replacement};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 * 1024;

/// A checkpoint that is in place.
pub(super) struct Written {
    pub(super) checksum: u32,
    pub(super) length: u64,
}

struct Writer<'a> {
    file: Replacement<'a>,
    buffer: Vec<u8>,
    crc: u32,
}

impl Writer<'_> {
    fn push(&mut self, text: &[u8]) -> Result<(), Fault> {
        self.crc = crc32c::crc32c_append(self.crc, text);
        self.buffer.extend_from_slice(text);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Fault> {
        self.file.write(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// Writes a checkpoint and puts it in place. After an error that leaves that open, the old one or the new one is there.
pub(super) fn write<S: State>(
    disk: &dyn Disk,
    path: &Path,
    ids: &Ids,
    generation: u64,
    saved_at: &str,
    state: &S,
) -> Result<Written, Fault> {
    let mut file = Replacement::begin(disk, path)?;
    // The digits are filled in at the end, when all that they stand for has been written.
    file.write(format!("{}{}\"", seal::DOCUMENT, seal::digits(0)).as_bytes())?;
    let mut writer = Writer { file, buffer: Vec::with_capacity(BUFFER), crc: seal::ALONE };
    let quoted = |text: &str| serde_json::to_string(text).map_err(|_| Fault::from(Refused::Json));
    let header = format!(
        ",\n  \"format\": {},\n  \"version\": {},\n  \"store\": {},\n  \"{}\": {},\n  \"generation\": {generation},\n  \
         \"saved_at\": {},\n",
        quoted(S::FORMAT)?,
        state.version(),
        quoted(ids.store.as_str())?,
        kind(&ids.subject),
        quoted(ids.subject.name())?,
        quoted(saved_at)?,
    );
    writer.push(header.as_bytes())?;
    state.write(&mut |text| writer.push(text))?;
    writer.push(b"}\n")?;
    writer.flush()?;
    let Writer { mut file, crc: checksum, .. } = writer;
    file.patch(seal::DOCUMENT.len() as u64, seal::digits(checksum).as_bytes())?;
    let length = file.len();
    file.commit()?;
    Ok(Written { checksum, length })
}

/// Reads a checkpoint and checks that it is the one that it was opened for.
pub(super) fn read<S: State>(path: &Path, ids: &Ids, text: &[u8]) -> Result<(u32, Checkpoint<S>), Fault> {
    let checksum = seal::open(seal::DOCUMENT, seal::ALONE, text);
    let claimed = seal::claimed(text).filter(|(format, _)| format == S::FORMAT);
    let version = claimed.as_ref().map(|(_, found)| *found);
    if let Some((format, found)) = claimed
        && !(VERSION..=S::NEWEST).contains(&found)
    {
        return Err(Fault::Version { path: path.to_path_buf(), format, found, known: S::NEWEST });
    }
    let Some(checksum) = checksum else {
        return Err(Fault::corrupt(path, "its checksum does not match: it was damaged, cut short or edited"));
    };
    let read = S::read(text).map_err(|reason| Fault::corrupt(path, reason))?;
    if read.format != S::FORMAT {
        return Err(Fault::corrupt(path, format!("it has the format {:?}", read.format)));
    }
    if version != Some(read.state.version()) {
        return Err(Fault::corrupt(path, "it has what another version of its format has"));
    }
    ids.check(path, &read.store, &read.name)?;
    Ok((checksum, read))
}
