//! A definition into a schema: every fault of it is found.

use std::sync::Arc;

use crate::base::error::{Error, Result};
use crate::base::name::{BucketName, MAX_NAME_BYTES};
use crate::base::value::Text;
use crate::records::check::{Findings, NamedField, is_too_deep};
use crate::records::definition::{
    BucketDefinition, IndexDefinition, MAX_FIELDS, MAX_INDEX_PATHS, MAX_INDEXES, MAX_REQUEST_WINDOW,
};
use crate::records::field::{DefaultRule, Field, Generated, Kind};
use crate::records::migrate::Step;
use crate::records::record::{Layout, METADATA};
use crate::records::schema::{IndexRule, Path, Schema};

impl Schema {
    /// Checks a definition.
    ///
    /// # Errors
    /// `InvalidDefinition` with every fault.
    pub fn new(definition: BucketDefinition) -> Result<Self> {
        let mut problems = Vec::new();
        let BucketDefinition {
            name,
            key,
            fields,
            indexes,
            persistent,
            ordered,
            schema_version,
            mut steps,
            ttl,
            max_size,
            request_window,
        } = definition;
        let bucket = match BucketName::new(&name) {
            Ok(bucket) => Some(bucket),
            Err(error) => {
                problems.push(error.to_string());
                None
            }
        };
        let ttl_ms = ttl.and_then(|ttl| ttl.ms().map_err(|problem| problems.push(problem)).ok());
        if max_size == Some(0) {
            problems.push("the max_size must be at least 1".to_owned());
        }
        if request_window > MAX_REQUEST_WINDOW {
            problems.push(format!("a request window of {request_window} is more than {MAX_REQUEST_WINDOW}"));
        }
        check_steps(&mut steps, schema_version, &mut problems);
        if fields.len() > MAX_FIELDS {
            problems.push(format!("{} fields are more than {MAX_FIELDS}", fields.len()));
        }
        let key_position = check_key(key.as_deref(), &fields, &mut problems);
        let names: Vec<Text> = fields.iter().map(|(name, _)| name.into()).collect();
        check_names(&names, &mut problems);
        let layout = Layout::new(names, key_position.unwrap_or(0)).of(bucket.clone());

        let of_fields = fields.iter().filter(|(_, field)| field.unique);
        let of_fields = of_fields.map(|(name, _)| IndexDefinition { paths: vec![name.clone()], unique: true });
        let mut all: Vec<IndexDefinition> = Vec::new();
        for index in of_fields.chain(indexes) {
            match all.iter_mut().find(|other| other.paths == index.paths) {
                // Declared twice is kept once; the stricter wins.
                Some(same) => same.unique |= index.unique,
                None => all.push(index),
            }
        }
        if all.len() > MAX_INDEXES {
            problems.push(format!("{} indexes are more than {MAX_INDEXES}", all.len()));
        }
        let indexes = all.into_iter().filter_map(|index| check_index(index, &layout, &mut problems)).collect();

        let fields = fields.into_iter().enumerate();
        let fields: Box<[NamedField]> = fields
            .map(|(position, (name, field))| check_field(name, field, key_position == Some(position), &mut problems))
            .collect();
        match (bucket, key_position) {
            (Some(bucket), Some(key)) if problems.is_empty() => {
                let generated = |field: &NamedField| field.rule.generated == Some(Generated::Autoincrement);
                let defaulted = fields.iter().enumerate().filter(|(_, field)| field.rule.default.is_some());
                Ok(Self {
                    bucket,
                    layout: Arc::new(layout),
                    key,
                    autoincrements: fields.iter().any(generated),
                    defaulted: defaulted.map(|(position, _)| position).collect(),
                    fields,
                    indexes,
                    steps: steps.into(),
                    ttl_ms,
                    max_size,
                    request_window,
                    persistent,
                    ordered,
                    schema_version,
                })
            }
            _ => Err(Error::InvalidDefinition { bucket: name, problems }),
        }
    }
}

/// A name as it is shown in a problem.
fn shown(name: &str) -> String {
    name.escape_debug().take(MAX_NAME_BYTES).collect()
}

fn check_steps(steps: &mut [Step], schema_version: u32, problems: &mut Vec<String>) {
    if schema_version == 0 {
        problems.push("the schema version must be at least 1".to_owned());
    }
    steps.sort_by_key(|step| step.from);
    for step in &*steps {
        // One from 0 is wrong whatever the schema version is.
        if step.from == 0 || step.from >= schema_version {
            problems.push(format!(
                "a migration from version {}: it must be from 1 or later to at most {schema_version}, the schema version",
                step.from
            ));
        }
    }
    for pair in steps.windows(2).filter(|pair| pair[0].from == pair[1].from) {
        problems.push(format!("there are two migrations from version {}", pair[0].from));
    }
}

fn check_names(names: &[Text], problems: &mut Vec<String>) {
    for (position, name) in names.iter().enumerate() {
        let shown = shown(name);
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            problems.push(format!("field \"{shown}\": a name has 1 to {MAX_NAME_BYTES} bytes"));
        }
        if name.contains('.') {
            problems.push(format!("field \"{shown}\": a name has no dot"));
        }
        if METADATA.contains(&name.as_str()) {
            problems.push(format!("field \"{shown}\": the name is metadata's"));
        }
        // Beyond the bound the definition is refused anyway, and comparing all with all would take long.
        if position < MAX_FIELDS && names[..position].contains(name) {
            problems.push(format!("field \"{shown}\" is declared twice"));
        }
    }
}

fn check_field(name: String, field: Field, key: bool, problems: &mut Vec<String>) -> NamedField {
    let mut found = Vec::new();
    let kind = field.kind;
    let fits = match field.generated {
        None => true,
        Some(Generated::Uuid | Generated::Cuid) => matches!(kind, Kind::String | Kind::Any),
        Some(Generated::Timestamp) => matches!(kind, Kind::Int | Kind::Number | Kind::Date | Kind::Any),
        Some(Generated::Autoincrement) => matches!(kind, Kind::Int | Kind::Number | Kind::Any),
    };
    if let (false, Some(generated)) = (fits, field.generated) {
        found.push(format!("{generated:?} does not generate a {}", kind.name()));
    }
    let mut field = NamedField::new(name.into(), field, key, &mut found);
    if let Some(DefaultRule::Value(default)) = &field.rule.default {
        let mut default = Some(default.clone());
        // A default of another kind is stored in the field's, and so is kept in it.
        if default.as_ref().is_some_and(|value| is_too_deep(value, 1)) {
            found.push("its default is nested too deeply".to_owned());
        } else {
            let mut findings = Findings::default();
            field.check(&mut default, &mut findings);
            found.extend(findings.issues.iter().map(|issue| format!("its default: {}", issue.message)));
            field.rule.default = default.map(DefaultRule::Value);
        }
    }
    problems.extend(found.into_iter().map(|problem| format!("field \"{}\": {problem}", shown(&field.name))));
    field
}

fn check_key(key: Option<&str>, fields: &[(String, Field)], problems: &mut Vec<String>) -> Option<usize> {
    let Some(key) = key else {
        problems.push("no key is given".to_owned());
        return None;
    };
    let Some(position) = fields.iter().position(|(name, _)| name == key) else {
        problems.push(format!("the key \"{}\" is not declared", shown(key)));
        return None;
    };
    let kind = fields[position].1.kind;
    if !matches!(kind, Kind::Int | Kind::String) {
        problems.push(format!("the key \"{}\" is a {}, not an int or string", shown(key), kind.name()));
        return None;
    }
    Some(position)
}

fn check_index(index: IndexDefinition, layout: &Layout, problems: &mut Vec<String>) -> Option<IndexRule> {
    let label = shown(&index.paths.join(","));
    if index.paths.is_empty() || index.paths.len() > MAX_INDEX_PATHS {
        problems.push(format!("index \"{label}\": it has {} paths, not 1 to {MAX_INDEX_PATHS}", index.paths.len()));
        return None;
    }
    let mut paths = Vec::with_capacity(index.paths.len());
    for text in index.paths {
        if text.split('.').any(str::is_empty) {
            problems.push(format!("index \"{label}\": path \"{}\" has an empty name", shown(&text)));
            continue;
        }
        let (root, rest) = match text.split_once('.') {
            Some((root, rest)) => (root, Some(rest.to_owned())),
            None => (text.as_str(), None),
        };
        match layout.position(root) {
            Some(position) => paths.push(Path { position, rest, text }),
            None => problems.push(format!("index \"{label}\": field \"{}\" is not declared", shown(root))),
        }
    }
    Some(IndexRule { paths: paths.into(), unique: index.unique })
}
