//! Request ids: which writes a bucket has applied, so that one that is sent again is not applied again.

use std::collections::VecDeque;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::base::error::{Error, Result};
use crate::base::value::Key;
use crate::records::write::{Upserted, Write, Written};

/// Most bytes of a request id.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// A write that was applied under an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Request {
    /// The id that the caller chose: 1 to 128 bytes.
    pub id: String,
    /// Tells the write from others: the same id for another write is refused.
    pub fingerprint: u64,
    /// The records that it wrote, in the order of its answer.
    pub keys: Vec<Key>,
    /// How many records it removed.
    pub removed: u64,
    /// Whether it was an upsert of a key that was free.
    pub inserted: bool,
    /// The revision that it made.
    pub revision: u64,
}

impl Request {
    /// A request that has not been applied yet.
    ///
    /// # Errors
    /// `InvalidArgument` if the id is empty or longer than 128 bytes.
    pub fn new(id: impl Into<String>, write: &Write) -> Result<Self> {
        let id = id.into();
        let fingerprint = write.fingerprint();
        if id.is_empty() || id.len() > MAX_REQUEST_ID_BYTES {
            return Err(Error::invalid_argument("a request id has 1 to 128 bytes"));
        }
        Ok(Self { id, fingerprint, keys: Vec::new(), removed: 0, inserted: false, revision: 0 })
    }
}

impl Write {
    /// Tells this write from others, now and in later processes: FarmHash's fingerprint of its stored form.
    fn fingerprint(&self) -> u64 {
        // Written into memory, where nothing can fail; whatever could not be written would be equal to nothing.
        farmhash::fingerprint64(&rmp_serde::to_vec(self).unwrap_or_default())
    }
}

/// The newest requests that a bucket has applied.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    window: usize,
    /// By id: how many were forgotten before it, and with that its index in `order`.
    numbers: HashMap<String, u64>,
    order: VecDeque<Request>,
    forgotten: u64,
}

impl Requests {
    pub(super) fn new(window: usize) -> Self {
        Self { window, ..Self::default() }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Request> {
        let number = self.numbers.get(id)?.checked_sub(self.forgotten)?;
        self.order.get(usize::try_from(number).ok()?)
    }

    /// Notes what a request came to; answers it complete.
    pub(super) fn note(&mut self, mut request: Request, written: &Written, revision: u64) -> Request {
        request.keys = written.records().iter().map(|record| record.key().clone()).collect();
        request.removed = written.gone() as u64;
        request.inserted = matches!(written, Written::Upserted(Upserted::Inserted(_)));
        request.revision = revision;
        self.push(request.clone());
        request
    }

    pub(super) fn push(&mut self, request: Request) {
        if self.window == 0 {
            return;
        }
        self.numbers.insert(request.id.clone(), self.forgotten + self.order.len() as u64);
        self.order.push_back(request);
        while self.order.len() > self.window {
            if let Some(oldest) = self.order.pop_front() {
                self.numbers.remove(&oldest.id);
            }
            self.forgotten += 1;
        }
    }

    /// From the oldest to the newest.
    pub(super) fn all(&self) -> impl Iterator<Item = &Request> {
        self.order.iter()
    }
}
