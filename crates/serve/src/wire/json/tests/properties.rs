//! What holds for any schema and any body.

use arrow::datatypes::{ArrowPrimitiveType, Float16Type, TimeUnit};
use millstream_runtime::Gather;
use proptest::prelude::*;

use super::*;
use crate::wire::DecodeCode;

/// Draws numbers from a seed: the same seed, the same values.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// An integer of up to so many bits, the extremes often.
    fn bits(&mut self, width: u32) -> u64 {
        let mask = u64::MAX >> (64 - width);
        match self.below(6) {
            0 => 0,
            1 => mask,
            2 => 1 << (width - 1),
            3 => mask >> 1,
            _ => self.next() & mask,
        }
    }
}

fn any_type() -> impl Strategy<Value = DataType> {
    let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    let mut leaves = vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float16,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::FixedSizeBinary(5),
        DataType::Date32,
        DataType::Decimal128(20, 4),
        DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()),
    ];
    leaves.extend(units.map(|unit| DataType::Timestamp(unit, None)));
    proptest::sample::select(leaves).prop_recursive(3, 12, 4, |inner| {
        let item = (inner.clone(), any::<bool>())
            .prop_map(|(item, nullable)| Arc::new(Field::new("item", item, nullable)));
        prop_oneof![
            item.clone().prop_map(DataType::List),
            item.clone().prop_map(DataType::LargeList),
            (item, 1..4_i32).prop_map(|(item, size)| DataType::FixedSizeList(item, size)),
            fields_of(inner, 1..4).prop_map(|fields| DataType::Struct(fields.into())),
        ]
    })
}

fn fields_of(
    types: impl Strategy<Value = DataType>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Field>> {
    proptest::collection::vec((types, any::<bool>()), count).prop_map(|types| {
        let named = types.into_iter().enumerate();
        named.map(|(n, (data_type, nullable))| Field::new(format!("f{n} ä\""), data_type, nullable)).collect()
    })
}

fn any_schema() -> impl Strategy<Value = SchemaRef> {
    fields_of(any_type(), 1..6).prop_map(schema)
}

/// Writes a value of a field as the encoder would.
fn write_value(field: &Field, draw: &mut Draw, out: &mut String) {
    if field.is_nullable() && draw.below(4) == 0 {
        return out.push_str("null");
    }
    match field.data_type() {
        DataType::List(item) | DataType::LargeList(item) => {
            let count = draw.below(4);
            write_items(item, count, draw, out);
        }
        DataType::FixedSizeList(item, size) => write_items(item, *size as usize, draw, out),
        DataType::Struct(fields) => write_object(fields.iter().map(AsRef::as_ref), draw, out),
        leaf => out.push_str(&leaf_text(leaf, draw)),
    }
}

fn leaf_text(data_type: &DataType, draw: &mut Draw) -> String {
    match data_type {
        DataType::Boolean => (draw.below(2) == 0).to_string(),
        DataType::Int8 => (draw.bits(8) as i8).to_string(),
        DataType::Int16 => (draw.bits(16) as i16).to_string(),
        DataType::Int32 => (draw.bits(32) as i32).to_string(),
        DataType::Int64 => (draw.bits(64) as i64).to_string(),
        DataType::UInt8 => draw.bits(8).to_string(),
        DataType::UInt16 => draw.bits(16).to_string(),
        DataType::UInt32 => draw.bits(32).to_string(),
        DataType::UInt64 => draw.bits(64).to_string(),
        DataType::Float16 => {
            let half = <Float16Type as ArrowPrimitiveType>::Native::from_bits(draw.bits(16) as u16).to_f32();
            shortest(if half.is_finite() { half } else { 1.5 })
        }
        DataType::Float32 => {
            // Subnormals, the smallest, the largest and any other come from the bits.
            let single = f32::from_bits(draw.bits(32) as u32);
            shortest(if single.is_finite() { single } else { f32::MAX })
        }
        DataType::Float64 => {
            let double = f64::from_bits(draw.bits(64));
            shortest(if double.is_finite() { double } else { f64::MIN_POSITIVE / 8.0 })
        }
        DataType::Binary => ["\"\"", "\"AA==\"", "\"+/+/\""][draw.below(3)].to_owned(),
        DataType::FixedSizeBinary(_) => "\"AAECAwQ=\"".to_owned(),
        DataType::Date32 => ["\"2024-02-29\"", "\"0000-01-01\"", "-2147483648"][draw.below(3)].to_owned(),
        DataType::Decimal128(_, _) => {
            let unscaled = draw.bits(53);
            format!(
                "{}{}.{:04}",
                ["", "-"][usize::from(unscaled > 0) * draw.below(2)],
                unscaled / 10_000,
                unscaled % 10_000
            )
        }
        DataType::Timestamp(unit, _) => {
            let fraction = match unit {
                TimeUnit::Second => "",
                TimeUnit::Millisecond => ".001",
                TimeUnit::Microsecond => ".999999",
                TimeUnit::Nanosecond => ".000000001",
            };
            format!(
                "\"{}-0{}-1{}T2{}:5{}:00{fraction}Z\"",
                1700 + draw.below(500),
                1 + draw.below(9),
                draw.below(10),
                draw.below(4),
                draw.below(10)
            )
        }
        _ => {
            let texts = [
                "",
                "plain",
                "ä€😀",
                "\" \\ / \u{0} \n \u{7f} \u{2028}",
                "a longer text, with more than a few characters",
            ];
            serde_json::to_string(texts[draw.below(texts.len())]).unwrap()
        }
    }
}

fn shortest<F: zmij::Float>(float: F) -> String {
    zmij::Buffer::new().format_finite(float).to_owned()
}

fn write_items(item: &Field, count: usize, draw: &mut Draw, out: &mut String) {
    out.push('[');
    for at in 0..count {
        if at > 0 {
            out.push(',');
        }
        write_value(item, draw, out);
    }
    out.push(']');
}

fn write_object<'a>(fields: impl Iterator<Item = &'a Field>, draw: &mut Draw, out: &mut String) {
    out.push('{');
    for (at, field) in fields.enumerate() {
        if at > 0 {
            out.push(',');
        }
        *out += &serde_json::to_string(field.name()).unwrap();
        out.push(':');
        write_value(field, draw, out);
    }
    out.push('}');
}

/// A body as the encoder would write it: an object, or an array of up to four.
fn body_of(schema: &SchemaRef, seed: u64) -> String {
    let (mut draw, mut out) = (Draw(seed), String::new());
    let fields = || schema.fields().iter().map(AsRef::as_ref);
    if draw.below(2) == 0 {
        write_object(fields(), &mut draw, &mut out);
        return out;
    }
    out.push('[');
    for row in 0..draw.below(5) {
        if row > 0 {
            out.push(',');
        }
        write_object(fields(), &mut draw, &mut out);
    }
    out + "]"
}

/// The same body in other words: objects with their fields turned round and without their nulls, and white space.
fn reword(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().rev().filter(|(_, value)| !value.is_null());
            let fields = fields.map(|(name, value)| {
                format!("\t{}\n: {}", serde_json::to_string(name).unwrap(), reword(value))
            });
            format!("{{ {} }} ", fields.collect::<Vec<_>>().join(" ,\r\n"))
        }
        serde_json::Value::Array(items) => {
            format!(" [{} ]", items.iter().map(reword).collect::<Vec<_>>().join(" , "))
        }
        other => other.to_string(),
    }
}

/// Decimals and floats of 32 bits have more or fewer digits than a tree of 64-bit floats keeps.
fn survives_a_tree(data_type: &DataType) -> bool {
    match data_type {
        DataType::Float32 | DataType::Float16 | DataType::Decimal128(_, _) => false,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            survives_a_tree(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().all(|field| survives_a_tree(field.data_type())),
        _ => true,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_what_was_read(schema in any_schema(), seed in any::<u64>()) {
        let body = body_of(&schema, seed);
        let decoded = decode(&schema, &body).map_err(|error| TestCaseError::fail(format!("{body}: {error:?}")))?;
        prop_assert_eq!(encode(&decoded.batch, decoded.form), body);
        decoded.batch.columns().iter().try_for_each(|column| column.to_data().validate_full()).unwrap();
    }

    #[test]
    fn bodies_that_share_a_batch_are_the_same_rows_one_after_another(
        schema in any_schema(),
        seeds in proptest::collection::vec(any::<u64>(), 1..5),
    ) {
        let decoder = Decoder::new(Arc::clone(&schema), DecodeLimits::default()).unwrap();
        let (mut gathered, mut alone) = (None, Vec::new());
        for seed in seeds {
            let body = body_of(&schema, seed);
            let (part, _) = decoder.read(body.as_bytes()).unwrap();
            let decoded = decoder.decode(body.as_bytes()).unwrap().batch;
            prop_assert_eq!(decoder.rows(&part), decoded.num_rows());
            decoder.add(&mut gathered, part);
            alone.push(decoded);
        }
        let together = decoder.batch(gathered).unwrap();
        prop_assert_eq!(together, arrow::compute::concat_batches(&schema, &alone).unwrap());
    }

    #[test]
    fn another_wording_of_a_body_is_the_same_body(schema in any_schema(), seed in any::<u64>()) {
        prop_assume!(schema.fields().iter().all(|field| survives_a_tree(field.data_type())));
        let body = body_of(&schema, seed);
        let other = reword(&serde_json::from_str(&body).unwrap());
        let (one, other) = (decode(&schema, &body).unwrap(), decode(&schema, &other).unwrap());
        prop_assert_eq!(one.form, other.form);
        prop_assert_eq!(one.batch, other.batch);
    }

    #[test]
    fn a_body_that_ends_early_is_truncated(schema in any_schema(), seed in any::<u64>(), cut in any::<prop::sample::Index>()) {
        let body = body_of(&schema, seed);
        let error = decode(&schema, &body.as_bytes()[..cut.index(body.len())]).unwrap_err();
        prop_assert_eq!(error.code, DecodeCode::Truncated);
    }

    #[test]
    fn a_damaged_body_is_refused_or_still_json(
        schema in any_schema(),
        seed in any::<u64>(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut body = body_of(&schema, seed).into_bytes();
        for (at, byte, how) in damage {
            let at = at.index(body.len());
            match how {
                0 => body[at] ^= 1 << (byte % 8),
                1 => body.insert(at, byte),
                _ if body.len() > 1 => drop(body.remove(at)),
                _ => {}
            }
        }
        for limits in [DecodeLimits::default(), IGNORE] {
            if let Ok(decoded) = decode_within(&schema, limits, &body) {
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok());
                let again = encode(&decoded.batch, decoded.form);
                prop_assert_eq!(decode(&schema, again).unwrap().batch, decoded.batch);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(schema in any_schema(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if decode(&schema, &bytes).is_ok() {
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&bytes).is_ok());
        }
    }

    #[test]
    fn any_tokens_are_read_or_refused(
        schema in any_schema(),
        tokens in proptest::collection::vec(
            proptest::sample::select(vec!["{", "}", "[", "]", ",", ":", "null", "true", "1", "-1.5e3", "\"f0 ä\\\"\"", "\"\\ud83d", "\\u0041\"", " "]),
            0..40,
        ),
    ) {
        let body = tokens.concat();
        if decode(&schema, &body).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok());
        }
    }

    #[test]
    fn integers_are_what_serde_json_reads_of_their_text(
        text in "-?(0|[1-9][0-9]{0,19})(\\.(0{1,3}|[0-9]{1,4}))?([eE][+-]?[0-9])?",
        (data_type, least, most) in proptest::sample::select(vec![
            (DataType::Int8, i128::from(i8::MIN), i128::from(i8::MAX)),
            (DataType::UInt8, 0, i128::from(u8::MAX)),
            (DataType::Int32, i128::from(i32::MIN), i128::from(i32::MAX)),
            (DataType::Int64, i128::from(i64::MIN), i128::from(i64::MAX)),
            (DataType::UInt64, 0, i128::from(u64::MAX)),
        ]),
    ) {
        let number: serde_json::Number = serde_json::from_str(&text).unwrap();
        let digits = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
        let wanted = digits.or_else(|| {
            let float = number.as_f64().unwrap();
            let whole: i128 = format!("{float:.0}").parse().unwrap();
            (whole as f64 == float && whole.abs() < 1 << 53).then_some(whole)
        });
        let wanted = wanted.filter(|value| (least..=most).contains(value));
        let schema = schema([required("x", data_type)]);
        let got = decode(&schema, format!("{{\"x\":{text}}}"));
        let got = got.ok().map(|decoded| encode(&decoded.batch, decoded.form));
        prop_assert_eq!(got, wanted.map(|value| format!("{{\"x\":{value}}}")));
    }
}
