//! Bodies that are refused, and what is said about them.

use arrow::datatypes::TimeUnit;

use super::*;
use crate::wire::DecodeCode;

/// A value of a type is refused with this code, alone and in the second row of several.
#[track_caller]
fn check_value(data_type: &DataType, value: &str, code: &str) {
    let schema = schema([required("x", data_type.clone())]);
    let error = decode(&schema, format!("{{\"x\":{value}}}")).expect_err(value);
    assert_eq!((error.code.name(), error.row), (code, None), "{value} as {data_type}: {error}");
    assert!(error.field.as_deref().is_some_and(|field| field.starts_with('x')), "{value}: {error:?}");
    assert!(error.message.len() < 200, "{}", error.message);
}

#[track_caller]
fn check(schema: &SchemaRef, body: &str, code: &str, field: Option<&str>, row: Option<usize>) -> String {
    let error = decode(schema, body).expect_err(body);
    assert_eq!(
        (error.code.name(), error.field.as_deref(), error.row),
        (code, field, row),
        "{body}: {error:?}"
    );
    error.message
}

#[test]
fn values_of_the_wrong_type() {
    let long = format!("\"{}\"", "long".repeat(1000));
    let others = ["true", "1", "1.5", "\"text\"", "null", "[]", "{}", &long];
    let point = DataType::Struct(vec![required("a", DataType::Int64)].into());
    for (data_type, right) in [
        (DataType::Boolean, vec!["true"]),
        (DataType::Int64, vec!["1"]),
        (DataType::UInt8, vec!["1"]),
        (DataType::Float64, vec!["1", "1.5"]),
        (DataType::Float32, vec!["1", "1.5"]),
        (DataType::Utf8, vec!["\"text\"", &long]),
        (DataType::Binary, vec!["\"text\"", &long]),
        (DataType::Timestamp(TimeUnit::Second, None), vec!["1"]),
        (DataType::Date32, vec!["1"]),
        (DataType::Decimal128(5, 1), vec!["1", "1.5"]),
        (list(required("item", DataType::Int64)), vec!["[]"]),
        (point, vec!["{}"]),
    ] {
        for value in others.iter().filter(|value| !right.contains(value)) {
            check_value(&data_type, value, "wrong_type");
        }
    }
}

#[test]
fn messages_name_what_is_wanted_and_what_came() {
    let schema = schema([
        optional("f", DataType::Float32),
        optional("i", DataType::Int8),
        optional("t", DataType::Utf8),
    ]);
    for (body, message) in [
        (r#"{"f":"1"}"#, "must be a number, but is a string"),
        (r#"{"f":[1]}"#, "must be a number, but is an array"),
        (r#"{"i":1.5}"#, "must be a whole number, but is a number with a point or exponent"),
        (r#"{"i":300}"#, "lies outside of what Int8 can hold"),
        (r#"{"t":7}"#, "must be a string, but is a number"),
        (r#"{"t":{"a":1}}"#, "must be a string, but is an object"),
        (r#"{"fi":1}"#, "no field `fi`; did you mean `f`?"),
        (r#"[1]"#, "must be an object, but is a number"),
        (r#"7"#, "must be an object or an array of objects, but is a number"),
    ] {
        assert_eq!(decode(&schema, body).unwrap_err().message, message, "{body}");
    }
}

#[test]
fn whole_numbers_have_no_fraction() {
    for value in ["1.5", "1e-2", "-0.5", "9007199254740992.0", "1e18"] {
        check_value(&DataType::Int64, value, "wrong_type");
        check_value(&DataType::UInt64, value, "wrong_type");
        check_value(&DataType::Timestamp(TimeUnit::Second, None), value, "wrong_type");
    }
    check_value(&DataType::Date32, "1.5", "wrong_type");
}

#[test]
fn numbers_that_the_type_cannot_hold() {
    for (data_type, values) in [
        (DataType::Int8, vec!["128", "-129", "300", "128.0", "-1.29e2"]),
        (DataType::Int16, vec!["32768", "-32769"]),
        (DataType::Int32, vec!["2147483648", "-2147483649"]),
        (DataType::Int64, vec!["9223372036854775808", "-9223372036854775809", "1e20"]),
        (DataType::UInt8, vec!["256", "-1", "256.0", "-1.0"]),
        (DataType::UInt64, vec!["18446744073709551616", "-1"]),
        (DataType::Float16, vec!["65520", "1e5"]),
        (DataType::Float32, vec!["3.5e38", "-1e39", "1e999"]),
        (DataType::Float64, vec!["1e309", "-1e400"]),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            vec!["\"2300-01-01T00:00:00Z\"", "9223372036854775808"],
        ),
        (
            DataType::Timestamp(TimeUnit::Second, None),
            vec!["\"2026-01-01T00:00:00.5Z\"", "\"2016-12-31T23:59:60Z\""],
        ),
        (DataType::Date32, vec!["2147483648", "2147483648.0"]),
        (
            DataType::Decimal128(5, 2),
            vec!["1000", "0.001", "1e10", "\"1e-3\"", "1e999999999", "1e-999999999"],
        ),
        (DataType::FixedSizeBinary(2), vec!["\"AQID\""]),
    ] {
        for value in values {
            check_value(&data_type, value, "out_of_range");
        }
    }
}

#[test]
fn text_that_is_no_time_date_decimal_or_base64() {
    let instant = DataType::Timestamp(TimeUnit::Second, None);
    for (data_type, values) in [
        (instant, vec!["\"2026-01-31\"", "\"2026-13-01T00:00:00Z\"", "\"now\"", "\"\"", "1.5"]),
        (
            DataType::Date32,
            vec!["\"2026-1-31\"", "\"2026-02-30\"", "\"+026-01-01\"", "\"2026-01-31T00:00:00Z\""],
        ),
        (
            DataType::Decimal128(5, 2),
            vec!["\"\"", "\"1,5\"", "\"-\"", "\".5\"", "\"1.\"", "\"1e\"", "\"1.e5\"", "\"+1\""],
        ),
        (DataType::Binary, vec!["\"AA=\"", "\"A\"", "\"-_8=\"", "\"AA==AA\""]),
    ] {
        for value in values {
            check_value(&data_type, value, "wrong_type");
        }
    }
}

#[test]
fn words_that_json_does_not_have() {
    for value in
        ["NaN", "Infinity", "-Infinity", "nan", "None", "True", "undefined", "01", "+1", ".5", "1.", "'a'"]
    {
        for data_type in [DataType::Float64, DataType::Float32, DataType::Int64, DataType::Utf8] {
            check_value(&data_type, value, "malformed");
        }
    }
    for value in ["\"line\nbreak\"", "\"\\x\"", "[1,]", "[1 2]", "{\"a\" 1}", "{\"a\":1,}", "{a:1}"] {
        check_value(
            &list(required("item", DataType::Int64)),
            value,
            if value.starts_with('{') { "wrong_type" } else { "malformed" },
        );
    }
}

#[test]
fn fields_that_should_be_or_should_not_be_there() {
    let point = DataType::Struct(vec![required("x", DataType::Int64), optional("y", DataType::Int64)].into());
    let schema =
        schema([required("amount", DataType::Float64), optional("points", list(required("item", point)))]);
    for (body, code, field, row) in [
        (r#"{}"#, "missing_field", "amount", None),
        (r#"{"amount":null}"#, "wrong_type", "amount", None),
        (r#"[{"amount":1},{}]"#, "missing_field", "amount", Some(1)),
        (r#"{"amuont":1}"#, "unknown_field", "amuont", None),
        (r#"{"amount":1,"amount":1}"#, "duplicate_field", "amount", None),
        (r#"{"amount":1,"points":null,"points":null}"#, "duplicate_field", "points", None),
        (r#"{"amount":1,"points":[{"x":1},{"y":1}]}"#, "missing_field", "points[1].x", None),
        (r#"[{"amount":1,"points":[{"x":1,"z":1}]}]"#, "unknown_field", "points[0].z", Some(0)),
        (r#"{"amount":1,"points":[{"x":1},{"x":1},{"x":1,"x":2}]}"#, "duplicate_field", "points[2].x", None),
        (r#"{"amount":1,"points":[{"x":1},null]}"#, "wrong_type", "points[1]", None),
        (r#"{"amount":1,"points":[{"x":[]}]}"#, "wrong_type", "points[0].x", None),
    ] {
        check(&schema, body, code, Some(field), row);
    }
}

#[test]
fn the_closest_known_field_is_named() {
    let schema = schema([required("amount", DataType::Float64), optional("country", DataType::Utf8)]);
    let message = check(&schema, r#"{"amount":1,"cuontry":"US"}"#, "unknown_field", Some("cuontry"), None);
    assert_eq!(message, "no field `cuontry`; did you mean `country`?");
    let key = "k".repeat(10_000);
    let error = decode(&schema, format!(r#"{{"{key}":1}}"#)).unwrap_err();
    assert!(error.message.len() < 300 && error.field.unwrap().len() < 200);
}

#[test]
fn tensors_of_another_length() {
    let row = DataType::FixedSizeList(required("item", DataType::Float32).into(), 2);
    let schema = schema([required("t", DataType::FixedSizeList(required("item", row).into(), 2))]);
    check(&schema, r#"{"t":[[1,2],[3]]}"#, "wrong_type", Some("t[1]"), None);
    check(&schema, r#"{"t":[[1,2],[3,4,5]]}"#, "wrong_type", Some("t[1][2]"), None);
    check(&schema, r#"{"t":[[1,2]]}"#, "wrong_type", Some("t"), None);
}

#[test]
fn bodies_that_are_no_object_and_no_array_of_objects() {
    let schema = schema([required("x", DataType::Int64)]);
    for (body, code, row) in [
        ("", "truncated", None),
        (" \n", "truncated", None),
        ("null", "wrong_type", None),
        ("1", "wrong_type", None),
        ("\"x\"", "wrong_type", None),
        ("[null]", "wrong_type", Some(0)),
        (r#"[{"x":1},[]]"#, "wrong_type", Some(1)),
        (r#"[{"x":1},{"x":true}]"#, "wrong_type", Some(1)),
        (r#"{"x":1}}"#, "trailing", None),
        (r#"{"x":1} {"x":2}"#, "trailing", None),
        ("[] []", "trailing", None),
        (r#"[{"x":1}"#, "truncated", Some(1)),
        (r#"[{"x":1},]"#, "malformed", Some(1)),
        ("\u{feff}{\"x\":1}", "malformed", None),
        ("{'x':1}", "malformed", None),
        ("{\"x\":1/**/}", "malformed", None),
    ] {
        let error = decode(&schema, body).expect_err(body);
        assert_eq!((error.code.name(), error.row), (code, row), "{body}: {error:?}");
    }
}

#[test]
fn text_that_is_not_unicode() {
    let schema = schema([optional("x", DataType::Utf8), free_form(optional("free", DataType::Utf8))]);
    for body in [
        b"{\"x\":\"\xff\"}".as_slice(),
        b"{\"x\":\"\xc0\x80\"}",
        b"{\"\xed\xa0\x80\":1}",
        br#"{"x":"\ud800"}"#,
        br#"{"x":"\udc00\ud800"}"#,
        br#"{"x":"\ud800x"}"#,
        br#"{"x":"\ud83d\u0041"}"#,
        br#"{"free":["\ud800"]}"#,
        br#"{"free":"\ud83d\ud83d"}"#,
    ] {
        let error = decode(&schema, body).expect_err(&String::from_utf8_lossy(body));
        assert_eq!(error.code, DecodeCode::BadUtf8, "{error:?}");
    }
    assert!(decode(&schema, br#"{"free":"\\ud800 \" \ud83d\ude00"}"#).is_ok());
}

#[test]
fn a_body_cut_anywhere_is_truncated() {
    let item = DataType::Struct(
        vec![required("p", DataType::Decimal128(9, 2)), optional("q", DataType::Float32)].into(),
    );
    let schema = schema([
        required("s", DataType::Utf8),
        required("n", DataType::Float64),
        optional("items", list(required("item", item))),
        free_form(optional("free", DataType::Utf8)),
    ]);
    let body = r#"{"s":"ä\u00e4\n","n":-1.5e-3,"items":[{"p":12.50,"q":null}],"free":{"a":[true,"x"]}}"#;
    decode(&schema, body).unwrap();
    for cut in 0..body.len() {
        let error = decode(&schema, &body.as_bytes()[..cut]).expect_err(body);
        assert_eq!(
            error.code,
            DecodeCode::Truncated,
            "{}: {error:?}",
            &body[..body.floor_char_boundary(cut)]
        );
    }
}

#[test]
fn values_nested_too_deep() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let known = schema([free_form(optional("free", DataType::Utf8)), optional("x", DataType::Int64)]);
    decode(&known, format!(r#"{{"free":{}}}"#, nested(64))).unwrap();
    check(&known, &format!(r#"{{"free":{}}}"#, nested(65)), "too_deep", Some("free"), None);
    check(&known, &format!(r#"{{"x":{}}}"#, nested(100_000)), "wrong_type", Some("x"), None);
    check(&known, &nested(100_000), "wrong_type", None, Some(0));
    let error = decode_within(&known, IGNORE, format!(r#"{{"other":{}}}"#, nested(100_000))).unwrap_err();
    assert_eq!(error.code, DecodeCode::TooDeep);
    // Brackets within text are no nesting.
    decode(&known, format!(r#"{{"free":"{}\"["}}"#, "[".repeat(100))).unwrap();
}

#[test]
fn bodies_beyond_the_limits() {
    let schema = schema([optional("x", DataType::Int64)]);
    let limits = DecodeLimits { body_bytes: 100, rows: 20, ..DecodeLimits::default() };
    let rows = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
    for (body, code) in [(padded(101), DecodeCode::TooLarge), (rows(21), DecodeCode::TooManyRows)] {
        assert_eq!(decode_within(&schema, limits, &body).unwrap_err().code, code, "{body}");
    }
    decode_within(&schema, limits, padded(100)).unwrap();
    decode_within(&schema, limits, rows(20)).unwrap();
    let none = DecodeLimits { rows: 0, ..limits };
    assert_eq!(decode_within(&schema, none, "{}").unwrap_err().code, DecodeCode::TooManyRows);
    decode_within(&schema, none, "[]").unwrap();
}

#[test]
fn absent_values_that_take_more_than_they_may() {
    let tensor = DataType::FixedSizeList(required("item", DataType::Float64).into(), 1000);
    let schema = schema([optional("t", tensor)]);
    let limits = DecodeLimits { absent_bytes: 100_000, ..DecodeLimits::default() };
    let rows = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    decode_within(&schema, limits, rows(12)).unwrap();
    let error = decode_within(&schema, limits, rows(13)).unwrap_err();
    assert_eq!((error.code, error.row), (DecodeCode::TooLarge, Some(12)));
}

#[test]
fn a_dictionary_holds_no_more_than_its_keys_can_count() {
    let schema = schema([required("x", DataType::Dictionary(DataType::UInt8.into(), DataType::Utf8.into()))]);
    let body = |count: usize| {
        format!("[{}]", (0..count).map(|n| format!(r#"{{"x":"{n}"}}"#)).collect::<Vec<_>>().join(","))
    };
    decode(&schema, body(200)).unwrap();
    assert_eq!(decode(&schema, body(300)).unwrap_err().code, DecodeCode::OutOfRange);
}

#[test]
fn schemas_that_cannot_be_read_or_written() {
    let duration = DataType::Interval(arrow::datatypes::IntervalUnit::DayTime);
    let union = DataType::Union(arrow::datatypes::UnionFields::empty(), arrow::datatypes::UnionMode::Sparse);
    let fields = schema([
        required("a", duration),
        required("b", list(required("item", union.clone()))),
        required("c", DataType::Int64),
        required("c", DataType::Int64),
    ]);
    let problems = Decoder::new(fields, DecodeLimits::default()).unwrap_err();
    assert_eq!(problems.problems().len(), 3, "{problems}");
    let problems = Encoder::new(schema([required("b", list(required("item", union)))])).unwrap_err();
    assert_eq!(problems.problems().len(), 1, "{problems}");
    let deep = (0..100).fold(DataType::Int64, |item, _| list(required("item", item)));
    Decoder::new(schema([required("deep", deep)]), DecodeLimits::default()).unwrap_err();
}
