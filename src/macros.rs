//! `record!`.

/// Writes an [`Object`](crate::base::value::Object) down as JSON would, with any expression as a value.
///
/// ```
/// use ractor_persistence::record;
/// let name = "Ada";
/// let ada = record! { "name": name, "tags": ["a", { "b": null }], "address": { "city": "London" }, "age": 30 + 6 };
/// assert_eq!(ada.get("age").and_then(|age| age.as_i64()), Some(36));
/// assert_eq!(ada.to_json()["tags"][1]["b"], serde_json::Value::Null);
/// ```
#[macro_export]
macro_rules! record {
    (@into $object:ident) => {};
    (@into $object:ident $name:tt : $value:tt $(, $($rest:tt)*)?) => {
        $object.insert($name, $crate::record!(@value $value));
        $($crate::record!(@into $object $($rest)*);)?
    };
    (@into $object:ident $name:tt : $value:expr $(, $($rest:tt)*)?) => {
        $object.insert($name, $crate::base::value::Value::from($value));
        $($crate::record!(@into $object $($rest)*);)?
    };
    (@items $items:ident) => {};
    (@items $items:ident $value:tt $(, $($rest:tt)*)?) => {
        $items.push($crate::record!(@value $value));
        $($crate::record!(@items $items $($rest)*);)?
    };
    (@items $items:ident $value:expr $(, $($rest:tt)*)?) => {
        $items.push($crate::base::value::Value::from($value));
        $($crate::record!(@items $items $($rest)*);)?
    };
    (@value null) => { $crate::base::value::Value::Null };
    (@value { $($inner:tt)* }) => { $crate::base::value::Value::Object($crate::record! { $($inner)* }) };
    (@value [ $($inner:tt)* ]) => {{
        #[allow(unused_mut, clippy::vec_init_then_push)]
        let items = { let mut items = ::std::vec::Vec::new(); $crate::record!(@items items $($inner)*); items };
        $crate::base::value::Value::Array(items.into())
    }};
    (@value $value:expr) => { $crate::base::value::Value::from($value) };
    ($($inner:tt)*) => {{
        #[allow(unused_mut)]
        let object = { let mut object = $crate::base::value::Object::new(); $crate::record!(@into object $($inner)*); object };
        object
    }};
}
