//! The part of JSON Schema that docs/json.schema.json uses, checked strictly: a keyword that is
//! not known here fails, so that no part of the schema is silently ignored.

use serde_json::{Map, Value};

/// Checks a document against a definition of docs/json.schema.json.
pub fn check(document: &Value, definition: &str) -> Result<(), String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json.schema.json");
    let root: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let schema = root.pointer(&format!("/$defs/{definition}")).unwrap();
    validate(document, schema, &root, definition)
}

fn validate(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    let schema = schema.as_object().unwrap();
    for (keyword, argument) in schema {
        match keyword.as_str() {
            "$ref" => {
                let pointer = argument.as_str().unwrap().trim_start_matches('#');
                validate(value, root.pointer(pointer).unwrap(), root, at)?;
            }
            "type" => check_type(value, argument, at)?,
            "const" if value == argument => {}
            "enum" if argument.as_array().unwrap().contains(value) => {}
            "minimum"
                if value
                    .as_f64()
                    .is_none_or(|number| number >= argument.as_f64().unwrap()) => {}
            "pattern" => check_address(value, argument, at)?,
            "required" | "properties" | "additionalProperties" => {}
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(item, argument, root, &format!("{at}[{index}]"))?;
                }
            }
            _ => return Err(format!("{at}: {value} fails {keyword} {argument}")),
        }
    }
    value
        .as_object()
        .map_or(Ok(()), |object| check_object(object, schema, root, at))
}

fn check_type(value: &Value, types: &Value, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("unknown type {other}"),
    };
    let fits = match types {
        Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
        name => is(name.as_str().unwrap()),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("{at}: {value} is not {types}"))
    }
}

/// The only pattern of the schema.
fn check_address(value: &Value, pattern: &Value, at: &str) -> Result<(), String> {
    assert_eq!(pattern, "^0x[0-9a-f]+$");
    let Some(text) = value.as_str() else {
        return Ok(());
    };
    let digits = text.strip_prefix("0x").unwrap_or_default();
    let fits = !digits.is_empty()
        && digits
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if fits {
        Ok(())
    } else {
        Err(format!("{at}: {text} is no address"))
    }
}

fn check_object(
    object: &Map<String, Value>,
    schema: &Map<String, Value>,
    root: &Value,
    at: &str,
) -> Result<(), String> {
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if !object.contains_key(name.as_str().unwrap()) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties");
    for (name, value) in object {
        let at = format!("{at}.{name}");
        match (
            properties.and_then(|properties| properties.get(name)),
            others,
        ) {
            (Some(property), _) => validate(value, property, root, &at)?,
            (None, Some(Value::Bool(false))) => return Err(format!("{at} is not in the schema")),
            (None, Some(other)) if other.is_object() => validate(value, other, root, &at)?,
            (None, _) => {}
        }
    }
    Ok(())
}
