//! Queries by name.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::base::error::{Error, Result};
use crate::base::value::Value;
use crate::bucket::directory::Directory;
use crate::bucket::live::context::QueryContext;
use crate::bucket::live::engine::LiveQueries;
use crate::bucket::live::handle::LiveQuery;
use crate::bucket::live::task::{Answer, caught};
use crate::records::guarded;

/// A query function with parameters.
type Named = Arc<dyn Fn(QueryContext, Value) -> Answer<Value> + Send + Sync>;

/// The named queries of a store.
#[derive(Default)]
pub(crate) struct NamedQueries(Mutex<HashMap<String, Named>>);

impl fmt::Debug for NamedQueries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedQueries").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl NamedQueries {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Named>> {
        // Nothing foreign runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn define<F, Fut>(&self, name: String, function: F) -> Result<()>
    where
        F: Fn(QueryContext, Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Value>> + Send + 'static,
    {
        let function: Named = Arc::new(move |context, params| Box::pin(function(context, params)));
        match self.all().entry(name) {
            Entry::Occupied(taken) => Err(Error::QueryAlreadyDefined { name: taken.key().clone() }),
            Entry::Vacant(free) => {
                free.insert(function);
                Ok(())
            }
        }
    }

    pub(crate) fn undefine(&self, name: &str) -> Result<()> {
        let removed = self.all().remove(name);
        removed.map(drop).ok_or_else(|| Error::QueryNotDefined { name: name.to_owned() })
    }

    fn get(&self, name: &str) -> Result<Named> {
        self.all().get(name).cloned().ok_or_else(|| Error::QueryNotDefined { name: name.to_owned() })
    }

    /// Runs a query once.
    pub(crate) async fn run(&self, directory: Directory, name: &str, params: Value) -> Result<Value> {
        let function = self.get(name)?;
        let answer = guarded("a query", || function(QueryContext::once(directory), params))?;
        caught("a query", answer).await?
    }

    pub(crate) async fn subscribe(&self, live: &LiveQueries, name: &str, params: Value) -> Result<LiveQuery<Value>> {
        let function = self.get(name)?;
        live.subscribe(move |context| function(context, params.clone())).await
    }

    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }
}
