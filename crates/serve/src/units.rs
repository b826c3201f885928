//! Times and sizes as people write them in project files: `250ms`, `2s`, `1h`, `64KiB`.

pub(crate) use millstream_graph::spec::Size;
pub(crate) use millstream_graph::spec::Time;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit_above_zero_and_up_to_a_year() {
        let read = |text: &str| {
            let time: Result<Time, _> = serde_json::from_value(text.into());
            time.ok().map(|time| time.0.as_millis())
        };
        for (text, millis) in [
            ("250ms", Some(250)),
            ("2 s", Some(2_000)),
            ("1.5s", Some(1_500)),
            ("2 s ", Some(2_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
        ] {
            assert_eq!(read(text), millis, "{text}");
        }
        for text in ["", "2", "s", "0s", "-1s", "2S", "99999999999999999999s", "18446744073709551615h", "2y"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
