//! Lists of numbers as the kernel writes them (cpuset(7), "List format"): `0-3,7`.

/// Past any number of CPUs or memory nodes that Linux can be built for.
const MAX: usize = 8192;

/// The numbers of a list as a mask of 64-bit words, or what is wrong with it. An empty list is an empty
/// mask.
pub fn mask(list: &str) -> Result<Vec<u64>, String> {
    let mut words = Vec::new();
    for part in list.trim().split(',').filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(format!("{:?} runs backwards", part));
        }
        for number in first..=last {
            let word = number / 64;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            if let Some(word) = words.get_mut(word) {
                *word |= 1u64 << (number % 64);
            }
        }
    }
    Ok(words)
}

fn number(text: &str) -> Result<usize, String> {
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && number < MAX => Ok(number),
        _ => Err(format!("{:?} is no number below {MAX}", text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_masks() {
        assert_eq!(mask(""), Ok(vec![]));
        assert_eq!(mask("0"), Ok(vec![1]));
        assert_eq!(mask("0-3,7"), Ok(vec![0b1000_1111]));
        assert_eq!(mask("64, 1"), Ok(vec![2, 1]));
        assert_eq!(mask("63-64"), Ok(vec![1 << 63, 1]));
        assert_eq!(mask("1300").map(|mask| mask.len()), Ok(21));
        for bad in ["a", "1-", "-1", "3-1", "1,,2", ",", "+1", "8192", "0-99999999999", "1.0"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }
}
