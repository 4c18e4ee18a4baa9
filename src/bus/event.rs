//! What is told.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::base::name::Subject;
use crate::bus::topic::Topic;

/// Something that has happened, as subscribers see it.
///
/// The plain fields are all that the crate's own subscribers read; what happened exactly is in the payload, whose type
/// depends on the topic.
#[derive(Clone)]
#[non_exhaustive]
pub struct Event {
    /// What it is about.
    pub topic: Topic,
    /// The bucket or channel that it happened to, if it happened to one.
    pub subject: Option<Subject>,
    /// The revision that the subject has because of it.
    pub revision: u64,
    /// About how many bytes it adds to what has to be saved.
    pub bytes: usize,
    /// Whether what happened is to be saved: not so in buckets and channels that opted out of it.
    pub persistent: bool,
    /// What exactly happened; read with [`payload`](Self::payload).
    pub payload: Arc<dyn Any + Send + Sync>,
}

impl Event {
    /// Puts an event together.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use ractor_persistence::bus::{Event, Topic};
    /// let event = Event::new(Topic::new(["weather", "rain"])?, None, 0, 0, false, Arc::new(3_u32));
    /// assert_eq!(event.payload::<u32>(), Some(&3));
    /// assert_eq!(event.payload::<String>(), None);
    /// # Ok::<_, ractor_persistence::base::error::Error>(())
    /// ```
    pub fn new(
        topic: Topic,
        subject: Option<Subject>,
        revision: u64,
        bytes: usize,
        persistent: bool,
        payload: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self { topic, subject, revision, bytes, persistent, payload }
    }

    /// What exactly happened, if it is of this type.
    pub fn payload<T: Any>(&self) -> Option<&T> {
        (*self.payload).downcast_ref()
    }
}

impl fmt::Debug for Event {
    /// Everything but the payload.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("topic", &self.topic)
            .field("subject", &self.subject)
            .field("revision", &self.revision)
            .field("bytes", &self.bytes)
            .field("persistent", &self.persistent)
            .finish_non_exhaustive()
    }
}

/// What a subscriber with a queue receives.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// An event, shared with all who hear it.
    Event(Arc<Event>),
    /// So many events were dropped here, because the subscriber had not kept up.
    Lagged(u64),
}
