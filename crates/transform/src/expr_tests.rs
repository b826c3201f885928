//! What expressions answer, and what is said about those that are wrong.

use arrow::util::display::array_value_to_string;
use expect_test::{Expect, expect};

use super::*;
use crate::testing::batch;

fn rows() -> RecordBatch {
    batch! {
        amount: [10.0, 250.5, -3.0],
        mean: [Some(4.0), None, Some(0.0)],
        n: [3i64, 0, -7],
        ts: [1760770293i64, 0, 951827696],
        country: [Some("US"), None, Some("de")],
        f: [1.5f32, 2.5, 0.1],
    }
}

/// Evaluates an expression on three rows and answers its type and values, or what is wrong.
fn eval(text: &str) -> String {
    let batch = rows();
    let compiled = match Expr::parse(text).and_then(|expr| expr.compile(&batch.schema())) {
        Ok(compiled) => compiled,
        Err(error) => return format!("refused: {}", error.problems().join("\n         ")),
    };
    match compiled.evaluate(&batch) {
        Ok(array) => {
            assert_eq!(array.data_type(), compiled.data_type(), "{text}");
            let values: Vec<_> = (0..array.len())
                .map(|row| {
                    if array.is_null(row) {
                        "null".into()
                    } else {
                        array_value_to_string(&array, row).unwrap()
                    }
                })
                .collect();
            format!(
                "{}{} {}",
                compiled.data_type(),
                if compiled.nullable() { "?" } else { "" },
                values.join(", ")
            )
        }
        Err(error) => format!("{} error: {error}", error.kind().name()),
    }
}

/// One expression per line.
fn check(table: &str, expect: &Expect) {
    let lines = table.lines().map(str::trim).filter(|text| !text.is_empty());
    let lines: Vec<_> = lines.map(|text| format!("{text} -> {}\n", eval(text))).collect();
    expect.assert_eq(&lines.concat());
}

#[test]
fn arithmetic_follows_sql() {
    check(
        r#"
            amount
            amount * 2
            amount / mean
            n / 2
            n % 2
            ts / 3600 % 24
            -n
            amount - n
            f * 2
            f + amount
            1.5
            n + 0.5
            amount / 0
            CAST(n AS DOUBLE) / 0
            n / 0
            10 / n
            9223372036854775807 + n
            n * 9223372036854775807
            CAST(n AS TINYINT)
            n::double
            NULL
            CAST(NULL AS DOUBLE)
        "#,
        &expect![[r#"
            amount -> Float64 10.0, 250.5, -3.0
            amount * 2 -> Float64 20.0, 501.0, -6.0
            amount / mean -> Float64? 2.5, null, -inf
            n / 2 -> Int64 1, 0, -3
            n % 2 -> Int64 1, 0, -1
            ts / 3600 % 24 -> Int64 6, 0, 12
            -n -> Int64 -3, 0, 7
            amount - n -> Float64 7.0, 250.5, 4.0
            f * 2 -> Float32 3.0, 5.0, 0.2
            f + amount -> Float64 11.5, 253.0, -2.899999998509884
            1.5 -> Float64 1.5, 1.5, 1.5
            n + 0.5 -> Float64 3.5, 0.5, -6.5
            amount / 0 -> Float64 inf, inf, -inf
            CAST(n AS DOUBLE) / 0 -> Float64 inf, NaN, -inf
            n / 0 -> rows error: `n / 0`: a whole number is divided by zero
            10 / n -> rows error: `10 / n`: a whole number is divided by zero
            9223372036854775807 + n -> rows error: `9223372036854775807 + n`: 9223372036854775807 + 3 is out of range
            n * 9223372036854775807 -> rows error: `n * 9223372036854775807`: 3 * 9223372036854775807 is out of range
            CAST(n AS TINYINT) -> Int8 3, 0, -7
            n::double -> Float64 3.0, 0.0, -7.0
            NULL -> refused: in `NULL`: a bare NULL has no type; write CAST(NULL AS DOUBLE) or another type
            CAST(NULL AS DOUBLE) -> Float64? null, null, null
        "#]],
    );
}

#[test]
fn functions_that_features_need_are_there() {
    check(
        r#"
            ln(amount)
            log1p(amount)
            log1p(f)
            expm1(n)
            exp(mean)
            abs(amount)
            abs(n)
            round(amount / 7, 2)
            floor(amount / 7)
            ceil(amount / 7)
            sqrt(amount)
            sqrt(abs(amount))
            power(n, 2)
            log10(abs(n))
            sin(amount)
            signum(n)
            isnan(sqrt(abs(amount)))
            coalesce(mean, 0)
            coalesce(country, 'none')
            nullif(n, 0)
            nvl(mean, 1.0)
            greatest(amount, mean, 5)
            least(n, 0)
            clamp(amount, 0, 100)
            clamp(n, -1, 1)
            clamp(mean, 1, 2)
            clamp(country, 'a', 'b')
            clamp(n)
            CASE WHEN amount > 100 THEN 'high' WHEN amount > 0 THEN 'low' ELSE 'none' END
            CASE country WHEN 'US' THEN 1 ELSE 0 END
            mean IS NULL
            country IN ('US', 'CA')
            n IN (1, 2, 3)
            amount BETWEEN 0 AND 100
            country LIKE 'U%'
            country = 'US' OR mean > 1
            amount > 0 AND mean > 1
            NOT (amount > 0)
            country <> 'US'
            country IS DISTINCT FROM 'US'
        "#,
        &expect![[r#"
            ln(amount) -> Float64 2.302585092994046, 5.523458920524919, NaN
            log1p(amount) -> Float64 2.3978952727983707, 5.527442989539794, NaN
            log1p(f) -> Float32 0.91629076, 1.252763, 0.09531018
            expm1(n) -> Float64 19.085536923187668, 0.0, -0.9990881180344455
            exp(mean) -> Float64? 54.598150033144236, null, 1.0
            abs(amount) -> Float64 10.0, 250.5, 3.0
            abs(n) -> Int64 3, 0, 7
            round(amount / 7, 2) -> Float64 1.43, 35.79, -0.43
            floor(amount / 7) -> Float64 1.0, 35.0, -1.0
            ceil(amount / 7) -> Float64 2.0, 36.0, -0.0
            sqrt(amount) -> rows error: `sqrt(amount)`: cannot take square root of a negative number
            sqrt(abs(amount)) -> Float64 3.1622776601683795, 15.827191791344413, 1.7320508075688772
            power(n, 2) -> Float64 9.0, 0.0, 49.0
            log10(abs(n)) -> Float64 0.47712125471966244, -inf, 0.8450980400142568
            sin(amount) -> Float64 -0.5440211108893698, -0.736182517717188, -0.1411200080598672
            signum(n) -> Float64 1.0, 0.0, -1.0
            isnan(sqrt(abs(amount))) -> Boolean false, false, false
            coalesce(mean, 0) -> Float64 4.0, 0.0, 0.0
            coalesce(country, 'none') -> Utf8 US, none, de
            nullif(n, 0) -> Int64? 3, null, -7
            nvl(mean, 1.0) -> Float64 4.0, 1.0, 0.0
            greatest(amount, mean, 5) -> Float64? 10.0, 250.5, 5.0
            least(n, 0) -> Int64 0, 0, -7
            clamp(amount, 0, 100) -> Float64 10.0, 100.0, 0.0
            clamp(n, -1, 1) -> Int64 1, 0, -1
            clamp(mean, 1, 2) -> Float64? 2.0, null, 1.0
            clamp(country, 'a', 'b') -> refused: in `clamp(country, 'a', 'b')`: clamp takes numbers or points in time, not Utf8, Utf8 and Utf8
            clamp(n) -> refused: in `clamp(n)`: clamp takes three arguments: clamp(x, low, high)
            CASE WHEN amount > 100 THEN 'high' WHEN amount > 0 THEN 'low' ELSE 'none' END -> Utf8 low, high, none
            CASE country WHEN 'US' THEN 1 ELSE 0 END -> Int64 1, 0, 0
            mean IS NULL -> Boolean false, true, false
            country IN ('US', 'CA') -> Boolean? true, null, false
            n IN (1, 2, 3) -> Boolean true, false, false
            amount BETWEEN 0 AND 100 -> Boolean true, false, false
            country LIKE 'U%' -> Boolean? true, null, false
            country = 'US' OR mean > 1 -> Boolean? true, null, false
            amount > 0 AND mean > 1 -> Boolean? true, null, false
            NOT (amount > 0) -> Boolean false, false, true
            country <> 'US' -> Boolean? false, null, true
            country IS DISTINCT FROM 'US' -> Boolean? false, true, true
        "#]],
    );
}

#[test]
fn text_dates_and_nested_values_work() {
    check(
        r#"
            upper(country)
            lower(country)
            length(country)
            country || '-' || n
            concat(country, '!')
            substr(country, 1, 1)
            substring(country from 2)
            trim('  x ')
            replace(country, 'U', 'u')
            regexp_like(country, '^[A-Z]+$')
            regexp_replace(country, '[A-Z]', '_', 'g')
            split_part('a-b-c', '-', 2)
            starts_with(country, 'U')
            strpos(country, 'S')
            position('S' in country)
            lpad(country, 4, '.')
            left(country, 1)
            date_part('hour', to_timestamp_seconds(ts))
            extract(dow FROM to_timestamp_seconds(ts))
            extract(year from to_timestamp_seconds(ts))
            date_trunc('day', to_timestamp_seconds(ts))
            to_timestamp('2024-02-29T12:00:00Z')
            CAST('2024-02-29' AS DATE)
            CAST(amount AS VARCHAR)
            CAST(amount AS BIGINT)
            CAST(country AS DOUBLE)
            TRY_CAST(country AS DOUBLE)
            named_struct('score', amount, 'n', n)
            struct(amount, n)
            {'score': amount}
            named_struct('a', amount)['a']
            make_array(amount, mean)
            [n, 1]
            make_array(n, 1)[1]
            array_length([n, 1])
        "#,
        &expect![[r#"
            upper(country) -> Utf8? US, null, DE
            lower(country) -> Utf8? us, null, de
            length(country) -> Int32? 2, null, 2
            country || '-' || n -> Utf8? US-3, null, de--7
            concat(country, '!') -> Utf8? US!, !, de!
            substr(country, 1, 1) -> Utf8? U, null, d
            substring(country from 2) -> Utf8? S, null, e
            trim('  x ') -> Utf8 x, x, x
            replace(country, 'U', 'u') -> Utf8? uS, null, de
            regexp_like(country, '^[A-Z]+$') -> Boolean? true, null, false
            regexp_replace(country, '[A-Z]', '_', 'g') -> Utf8? __, null, de
            split_part('a-b-c', '-', 2) -> Utf8 b, b, b
            starts_with(country, 'U') -> Boolean? true, null, false
            strpos(country, 'S') -> Int32? 2, null, 0
            position('S' in country) -> Int32? 2, null, 0
            lpad(country, 4, '.') -> Utf8? ..US, null, ..de
            left(country, 1) -> Utf8? U, null, d
            date_part('hour', to_timestamp_seconds(ts)) -> Int32 6, 0, 12
            extract(dow FROM to_timestamp_seconds(ts)) -> Int32 6, 4, 2
            extract(year from to_timestamp_seconds(ts)) -> Int32 2025, 1970, 2000
            date_trunc('day', to_timestamp_seconds(ts)) -> Timestamp(s)? 2025-10-18T00:00:00, 1970-01-01T00:00:00, 2000-02-29T00:00:00
            to_timestamp('2024-02-29T12:00:00Z') -> Timestamp(ns) 2024-02-29T12:00:00, 2024-02-29T12:00:00, 2024-02-29T12:00:00
            CAST('2024-02-29' AS DATE) -> Date32 2024-02-29, 2024-02-29, 2024-02-29
            CAST(amount AS VARCHAR) -> Utf8 10.0, 250.5, -3.0
            CAST(amount AS BIGINT) -> Int64 10, 250, -3
            CAST(country AS DOUBLE) -> rows error: `CAST(country AS DOUBLE)`: cannot cast string 'US' to value of Float64 type
            TRY_CAST(country AS DOUBLE) -> Float64? null, null, null
            named_struct('score', amount, 'n', n) -> Struct("score": Float64, "n": Int64) {score: 10.0, n: 3}, {score: 250.5, n: 0}, {score: -3.0, n: -7}
            struct(amount, n) -> Struct("c0": Float64, "c1": Int64) {c0: 10.0, c1: 3}, {c0: 250.5, c1: 0}, {c0: -3.0, c1: -7}
            {'score': amount} -> Struct("score": Float64) {score: 10.0}, {score: 250.5}, {score: -3.0}
            named_struct('a', amount)['a'] -> Float64 10.0, 250.5, -3.0
            make_array(amount, mean) -> List(Float64)? [10.0, 4.0], [250.5, ], [-3.0, 0.0]
            [n, 1] -> List(Int64) [3, 1], [0, 1], [-7, 1]
            make_array(n, 1)[1] -> Int64? 3, 0, -7
            array_length([n, 1]) -> UInt64? 2, 2, 2
        "#]],
    );
}

#[test]
fn mistakes_are_named_all_at_once() {
    check(
        r#"
            amuont / avgg
            Amount
            "US"
            country = US
            logp1(amount) + lnn(n)
            country + 1
            ln(country)
            amount > 'x'
            amount AND n
            NOT amount
            abs()
            abs(1, 2)
            sum(amount)
            max(amount)
            count(*)
            row_number() OVER (ORDER BY n)
            sum(amount) over (partition by n)
            (SELECT 1)
            amount IN (SELECT x FROM y)
            EXISTS (SELECT 1)
            random()
            now()
            current_date
            uuid()
            current_timestamp
            *
            amount.x
            x.amount
            $1
            ?
            @x
            CASE WHEN amount THEN 1 END
            repeat(country, n)
            repeat('x', 1000000000)
            lpad(country, 99999999)
            repeat(upper(repeat('x', 300)), 300)
            character_length(rpad(lpad('x', 100), 200))
            unnest([1])
            CAST(amount AS WIBBLE)
            amount::int::text::int
            array_transform([1], x -> x)
        "#,
        &expect![[r#"
            amuont / avgg -> refused: in `amuont / avgg`: no column `amuont`; did you mean `amount`?
                     in `amuont / avgg`: no column `avgg`; there is `amount`, `mean`, `n`, `ts`, `country`, `f`
            Amount -> refused: in `Amount`: no column `Amount`; did you mean `amount`?
            "US" -> refused: in `"US"`: no column `US`; did you mean `ts`? (text goes into single quotes)
            country = US -> refused: in `country = US`: no column `US`; did you mean `ts`?
            logp1(amount) + lnn(n) -> refused: in `logp1(amount) + lnn(n)`: no function `logp1`; did you mean `log1p`?
                     in `logp1(amount) + lnn(n)`: no function `lnn`; did you mean `ln`?
            country + 1 -> refused: in `country + 1`: cannot coerce arithmetic expression Utf8 + Int64 to valid types
            ln(country) -> refused: in `ln(country)`: failed to coerce arguments to satisfy a call to 'ln' function: coercion from Utf8 to the signature Uniform(1, [Float64, Float32]) failed
            amount > 'x' -> refused: in `amount > 'x'`: cannot cast string 'x' to value of Float64 type
            amount AND n -> refused: in `amount AND n`: cannot infer common argument type for logical boolean operation Float64 AND Int64
            NOT amount -> refused: in `NOT amount`: unary operator 'NOT' requires a boolean expression, got Float64
            abs() -> refused: in `abs()`: 'abs' does not support zero arguments
            abs(1, 2) -> refused: in `abs(1, 2)`: function 'abs' expects 1 arguments but received 2
            sum(amount) -> refused: in `sum(amount)`: `sum` sees many rows, an expression sees one
            max(amount) -> refused: in `max(amount)`: `max` sees many rows, an expression sees one; the largest of several values is `greatest`
            count(*) -> refused: in `count(*)`: `count` sees many rows, an expression sees one
            row_number() OVER (ORDER BY n) -> refused: in `row_number() OVER (ORDER BY n)`: `row_number` over a window sees many rows, an expression sees one
            sum(amount) over (partition by n) -> refused: in `sum(amount) over (partition by n)`: `sum` over a window sees many rows, an expression sees one
            (SELECT 1) -> refused: in `(SELECT 1)`: a subquery cannot be answered from one row
            amount IN (SELECT x FROM y) -> refused: in `amount IN (SELECT x FROM y)`: a subquery cannot be answered from one row
            EXISTS (SELECT 1) -> refused: in `EXISTS (SELECT 1)`: a subquery cannot be answered from one row
            random() -> refused: in `random()`: `random` answers something else each time, so a request could not be repeated; send the value as a column
            now() -> refused: in `now()`: `now` answers something else each time, so a request could not be repeated; send the value as a column
            current_date -> refused: in `current_date`: `current_date` answers something else each time, so a request could not be repeated; send the value as a column
            uuid() -> refused: in `uuid()`: `uuid` answers something else each time, so a request could not be repeated; send the value as a column
            current_timestamp -> refused: in `current_timestamp`: `current_timestamp` answers something else each time, so a request could not be repeated; send the value as a column
            * -> refused: in `*`: expected: an expression, found: * at Line: 1, Column: 1
            amount.x -> refused: in `amount.x`: cannot access field at argument 1: type Float64 is not Struct, Map, or Null
            x.amount -> refused: in `x.amount`: no column `x`; did you mean `n`?
            $1 -> refused: in `$1`: a placeholder has no value here
            ? -> refused: in `?`: a placeholder has no value here
            @x -> refused: in `@x`: no column `@x`; there is `amount`, `mean`, `n`, `ts`, `country`, `f`
            CASE WHEN amount THEN 1 END -> Int64? 1, 1, 1
            repeat(country, n) -> refused: in `repeat(country, n)`: `repeat` takes a plain number up to 65536 as its argument 2
            repeat('x', 1000000000) -> refused: in `repeat('x', 1000000000)`: `repeat` takes a plain number up to 65536 as its argument 2
            lpad(country, 99999999) -> refused: in `lpad(country, 99999999)`: `lpad` takes a plain number up to 65536 as its argument 2
            repeat(upper(repeat('x', 300)), 300) -> refused: in `repeat(upper(repeat('x', 300)), 300)`: `repeat` and what it repeats come to more than 65536 together
            character_length(rpad(lpad('x', 100), 200)) -> Int32 200, 200, 200
            unnest([1]) -> refused: in `unnest([1])`: no function `unnest`
            CAST(amount AS WIBBLE) -> refused: in `CAST(amount AS WIBBLE)`: unsupported SQL type WIBBLE
            amount::int::text::int -> Int32 10, 250, -3
            array_transform([1], x -> x) -> refused: in `array_transform([1], x -> x)`: no function `array_transform`
                     in `array_transform([1], x -> x)`: no column `x`; did you mean `n`?
        "#]],
    );
}

#[test]
fn texts_that_are_no_expression_are_refused() {
    check(
        r#"
            amount +
            amount amount
            SELECT amount
            amount; DROP TABLE x
            'open
            amount > 0 foo
            (amount
            amount)
            1 AS
            CREATE
            -- only a comment
            é
            amount ++ n
            CASE
            END
            ))))
            ]
            ""
        "#,
        &expect![[r#"
            amount + -> refused: in `amount +`: expected: an expression, found: EOF
            amount amount -> refused: in `amount amount`: expected: EOF, found: amount at Line: 1, Column: 8
            SELECT amount -> refused: in `SELECT amount`: expected: EOF, found: amount at Line: 1, Column: 8
            amount; DROP TABLE x -> refused: in `amount; DROP TABLE x`: expected: EOF, found: ; at Line: 1, Column: 7
            'open -> refused: in `'open`: unterminated string literal at Line: 1, Column: 1
            amount > 0 foo -> refused: in `amount > 0 foo`: expected: EOF, found: foo at Line: 1, Column: 12
            (amount -> refused: in `(amount`: expected: ), found: EOF
            amount) -> refused: in `amount)`: expected: EOF, found: ) at Line: 1, Column: 7
            1 AS -> refused: in `1 AS`: expected: identifier, found: EOF
            CREATE -> refused: in `CREATE`: no column `CREATE`; there is `amount`, `mean`, `n`, `ts`, `country`, `f`
            -- only a comment -> refused: in `-- only a comment`: expected: an expression, found: EOF
            é -> refused: in `é`: no column `é`; did you mean `n`?
            amount ++ n -> Float64 13.0, 250.5, -10.0
            CASE -> refused: in `CASE`: no column `CASE`; there is `amount`, `mean`, `n`, `ts`, `country`, `f`
            END -> refused: in `END`: no column `END`; there is `amount`, `mean`, `n`, `ts`, `country`, `f`
            )))) -> refused: in `))))`: expected: an expression, found: ) at Line: 1, Column: 1
            ] -> refused: in `]`: expected: an expression, found: ] at Line: 1, Column: 1
            "" -> refused: in `""`: no column ``; did you mean `n`? (text goes into single quotes)
        "#]],
    );
}

#[test]
fn long_and_deep_expressions_are_refused_and_those_below_the_bound_work() {
    type Shape = (&'static str, fn(usize) -> String);
    let shapes: &[Shape] = &[
        ("sum", |n| vec!["n"; n].join(" + ")),
        ("and", |n| vec!["n > 1"; n].join(" AND ")),
        ("or of in", |n| vec!["n IN (1,2)"; n].join(" OR ")),
        ("parentheses", |n| format!("{}n{}", "(".repeat(n), ")".repeat(n))),
        ("calls", |n| format!("{}n{}", "abs(".repeat(n), ")".repeat(n))),
        ("not", |n| format!("{} n > 1", "NOT ".repeat(n))),
        ("minus", |n| format!("{} n", "- ".repeat(n))),
        ("casts", |n| format!("n{}", "::bigint".repeat(n))),
        ("is null", |n| format!("n{}", " IS NULL".repeat(n))),
        ("field access", |n| format!("n{}", "['a']".repeat(n))),
        ("nested case", |n| format!("{}n{}", "CASE WHEN n > 1 THEN 1 ELSE ".repeat(n), " END".repeat(n))),
        ("flat case", |n| format!("CASE {} END", "WHEN n = 1 THEN 2 ".repeat(n))),
        ("list", |n| format!("n IN ({})", vec!["1"; n].join(","))),
        ("mixed", |n| format!("{}n{}", "(1 + ".repeat(n), " + 1)".repeat(n))),
        ("at time zone", |n| format!("to_timestamp(n){}", " AT TIME ZONE 'UTC'".repeat(n))),
    ];
    let mut lines = String::new();
    for (name, shape) in shapes {
        for size in [10, 45, 85, 200, 1000, 4000] {
            let text = shape(size);
            let answer = eval(&text);
            let answer = answer.rsplit("`: ").next().unwrap().chars().take(70).collect::<String>();
            lines += &format!("{name} x {size} -> {answer}\n");
        }
    }
    expect![[r#"
        sum x 10 -> Int64 30, 0, -70
        sum x 45 -> Int64 135, 0, -315
        sum x 85 -> Int64 255, 0, -595
        sum x 200 -> Int64 600, 0, -1400
        sum x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        sum x 4000 -> it nests or chains more than 256 operations; name a part of it in a st
        and x 10 -> Boolean true, false, false
        and x 45 -> Boolean true, false, false
        and x 85 -> Boolean true, false, false
        and x 200 -> it nests or chains more than 256 operations; name a part of it in a st
        and x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        and x 4000 -> 39995 bytes are more than the 16384 an expression may have
        or of in x 10 -> Boolean false, false, false
        or of in x 45 -> Boolean false, false, false
        or of in x 85 -> Boolean false, false, false
        or of in x 200 -> it nests or chains more than 256 operations; name a part of it in a st
        or of in x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        or of in x 4000 -> 55996 bytes are more than the 16384 an expression may have
        parentheses x 10 -> Int64 3, 0, -7
        parentheses x 45 -> Int64 3, 0, -7
        parentheses x 85 -> it nests too deep; name a part of it in a step before
        parentheses x 200 -> it nests too deep; name a part of it in a step before
        parentheses x 1000 -> it nests too deep; name a part of it in a step before
        parentheses x 4000 -> it nests too deep; name a part of it in a step before
        calls x 10 -> Int64 3, 0, 7
        calls x 45 -> Int64 3, 0, 7
        calls x 85 -> it nests too deep; name a part of it in a step before
        calls x 200 -> it nests too deep; name a part of it in a step before
        calls x 1000 -> it nests too deep; name a part of it in a step before
        calls x 4000 -> 20001 bytes are more than the 16384 an expression may have
        not x 10 -> Boolean true, false, false
        not x 45 -> Boolean false, true, true
        not x 85 -> expected: EOF, found: NOT at Line: 1, Column: 201
        not x 200 -> expected: EOF, found: NOT at Line: 1, Column: 201
        not x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        not x 4000 -> it nests or chains more than 256 operations; name a part of it in a st
        minus x 10 -> Int64 3, 0, -7
        minus x 45 -> Int64 -3, 0, 7
        minus x 85 -> it nests too deep; name a part of it in a step before
        minus x 200 -> it nests too deep; name a part of it in a step before
        minus x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        minus x 4000 -> it nests or chains more than 256 operations; name a part of it in a st
        casts x 10 -> Int64 3, 0, -7
        casts x 45 -> Int64 3, 0, -7
        casts x 85 -> Int64 3, 0, -7
        casts x 200 -> it nests or chains more than 256 operations; name a part of it in a st
        casts x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        casts x 4000 -> 32001 bytes are more than the 16384 an expression may have
        is null x 10 -> Boolean false, false, false
        is null x 45 -> Boolean false, false, false
        is null x 85 -> Boolean false, false, false
        is null x 200 -> it nests or chains more than 256 operations; name a part of it in a st
        is null x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        is null x 4000 -> 32001 bytes are more than the 16384 an expression may have
        field access x 10 -> cannot access field at argument 1: type Int64 is not Struct, Map, or N
        field access x 45 -> cannot access field at argument 1: type Int64 is not Struct, Map, or N
        field access x 85 -> cannot access field at argument 1: type Int64 is not Struct, Map, or N
        field access x 200 -> cannot access field at argument 1: type Int64 is not Struct, Map, or N
        field access x 1000 -> it nests or chains more than 256 operations; name a part of it in a st
        field access x 4000 -> 20001 bytes are more than the 16384 an expression may have
        nested case x 10 -> Int64 1, 0, -7
        nested case x 45 -> Int64 1, 0, -7
        nested case x 85 -> it nests too deep; name a part of it in a step before
        nested case x 200 -> it nests too deep; name a part of it in a step before
        nested case x 1000 -> 32001 bytes are more than the 16384 an expression may have
        nested case x 4000 -> 128001 bytes are more than the 16384 an expression may have
        flat case x 10 -> Int64? null, null, null
        flat case x 45 -> Int64? null, null, null
        flat case x 85 -> Int64? null, null, null
        flat case x 200 -> Int64? null, null, null
        flat case x 1000 -> 18009 bytes are more than the 16384 an expression may have
        flat case x 4000 -> 72009 bytes are more than the 16384 an expression may have
        list x 10 -> Boolean false, false, false
        list x 45 -> Boolean false, false, false
        list x 85 -> Boolean false, false, false
        list x 200 -> Boolean false, false, false
        list x 1000 -> Boolean false, false, false
        list x 4000 -> Boolean false, false, false
        mixed x 10 -> Int64 23, 20, 13
        mixed x 45 -> it nests too deep; name a part of it in a step before
        mixed x 85 -> it nests too deep; name a part of it in a step before
        mixed x 200 -> it nests too deep; name a part of it in a step before
        mixed x 1000 -> it nests too deep; name a part of it in a step before
        mixed x 4000 -> 40001 bytes are more than the 16384 an expression may have
        at time zone x 10 -> Timestamp(ns, "UTC")? 1970-01-01T00:00:03Z, 1970-01-01T00:00:00Z, 1969
        at time zone x 45 -> Timestamp(ns, "UTC")? 1970-01-01T00:00:03Z, 1970-01-01T00:00:00Z, 1969
        at time zone x 85 -> Timestamp(ns, "UTC")? 1970-01-01T00:00:03Z, 1970-01-01T00:00:00Z, 1969
        at time zone x 200 -> it nests or chains more than 256 operations; name a part of it in a st
        at time zone x 1000 -> 19015 bytes are more than the 16384 an expression may have
        at time zone x 4000 -> 76015 bytes are more than the 16384 an expression may have
    "#]]
    .assert_eq(&lines);
}
