//! How a durable value begins, is stored and is read.

use std::fmt;
use std::sync::Arc;

use crate::base::durability::Durability;
use crate::base::error::{Error, Result};
use crate::base::value::Value;
use crate::records::guarded;

type Initial<S> = Arc<dyn Fn() -> S + Send + Sync>;
type StepCode = Arc<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;

/// How a durable value begins, how it is stored and what leads from earlier versions of it to this one.
///
/// ```
/// use ractor_persistence::durable::DurableOptions;
/// use ractor_persistence::{Value, record};
///
/// #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// struct Counter {
///     count: i64,
///     step: i64,
/// }
///
/// // Version 1 was the bare number.
/// let options = DurableOptions::starting_with(|| Counter { count: 0, step: 1 }).schema_version(2).migrate(1, |old| {
///     let count = old.as_i64().ok_or("not a number")?;
///     Ok::<_, &str>(Value::from(record! { "count": count, "step": 1 }))
/// });
/// # let _: DurableOptions<Counter> = options;
/// ```
#[must_use]
pub struct DurableOptions<S> {
    pub(super) initial: Initial<S>,
    pub(super) schema_version: u32,
    pub(super) steps: Vec<Step>,
    pub(super) durability: Option<Durability>,
}

/// What turns a value of version `from` into one of the next.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) from: u32,
    code: StepCode,
}

impl Step {
    /// Takes a value one version further; a failure or panic is told in words.
    pub(super) fn run(&self, value: Value) -> Result<Value, String> {
        let from = self.from;
        match guarded("migrate", || (self.code)(value)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(message)) => Err(format!("the step from version {from}: {message}")),
            Err(_panicked) => Err(format!("the step from version {from} panicked")),
        }
    }
}

impl<S> Clone for DurableOptions<S> {
    fn clone(&self) -> Self {
        Self { initial: Arc::clone(&self.initial), steps: self.steps.clone(), ..*self }
    }
}

impl<S> fmt::Debug for DurableOptions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableOptions")
            .field("schema_version", &self.schema_version)
            .field("steps", &self.steps.iter().map(|step| step.from).collect::<Vec<_>>())
            .field("durability", &self.durability)
            .finish_non_exhaustive()
    }
}

/// Begins with `S::default()`.
impl<S: Default + 'static> Default for DurableOptions<S> {
    fn default() -> Self {
        Self::starting_with(S::default)
    }
}

impl<S> DurableOptions<S> {
    /// A value that begins with what `initial` makes, where nothing is stored under its name.
    pub fn starting_with(initial: impl Fn() -> S + Send + Sync + 'static) -> Self {
        Self { initial: Arc::new(initial), schema_version: 1, steps: Vec::new(), durability: None }
    }

    /// The version of `S`, stored with each value; a value of an earlier one goes through the steps of
    /// [`migrate`](Self::migrate). Default 1; at least 1.
    pub fn schema_version(self, version: u32) -> Self {
        Self { schema_version: version, ..self }
    }

    /// What turns a value of version `from` into one of the next, in its stored form. Versions without a step are taken
    /// as they are. Deterministic, please: it runs until its outcome has been saved.
    pub fn migrate<E: fmt::Display>(
        mut self,
        from: u32,
        step: impl Fn(Value) -> Result<Value, E> + Send + Sync + 'static,
    ) -> Self {
        let code = move |value| step(value).map_err(|error| error.to_string());
        self.steps.push(Step { from, code: Arc::new(code) });
        self
    }

    /// The level that [`persist`](crate::durable::Durable::persist) and [`delete`](crate::durable::Durable::delete) wait
    /// for; at [`Durability::Ram`] they wait for nothing. Default: the highest that the adapter has, which is
    /// [`Durability::Fsync`] for those of this crate.
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability: Some(durability), ..self }
    }

    /// Checks what can be checked without a store, and puts the steps in order.
    pub(super) fn checked(mut self) -> Result<Self> {
        let mut problems = Vec::new();
        if self.schema_version == 0 {
            problems.push("schema_version is at least 1".to_owned());
        }
        self.steps.sort_by_key(|step| step.from);
        for (at, step) in self.steps.iter().enumerate() {
            if step.from == 0 || step.from >= self.schema_version {
                problems.push(format!("there is no step from version {} to {}", step.from, self.schema_version));
            }
            if at > 0 && self.steps[at - 1].from == step.from {
                problems.push(format!("there are two steps from version {}", step.from));
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(Error::InvalidOptions { problems }) }
    }
}
