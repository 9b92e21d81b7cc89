//! The relative frequency of each status in a load, as weights: `created=80,paid=15,canceled=5`.

use std::fmt;
use std::str::FromStr;

use crate::order::Status;

/// Weights, at least one of them above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    weights: Vec<(Status, u32)>,
    total: u32,
}

impl Mix {
    /// Returns the sum of all weights, which is above zero.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Returns the status for a number below [`Self::total`].
    pub(crate) fn pick(&self, mut number: u32) -> Status {
        for (status, weight) in &self.weights {
            match number.checked_sub(*weight) {
                Some(rest) => number = rest,
                None => return *status,
            }
        }
        Status::Created
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights: Vec<(Status, u32)> = Vec::new();
        let mut total: u32 = 0;
        for part in text.split(',') {
            let (name, weight) =
                part.split_once('=').ok_or_else(|| format!("{part:?}: expected STATUS=WEIGHT, like created=80"))?;
            let status = name.trim().parse::<Status>()?;
            if weights.iter().any(|(known, _)| *known == status) {
                return Err(format!("{} is there twice", status.name()));
            }
            let weight =
                weight.trim().parse().map_err(|_| format!("{part:?}: expected a whole number as the weight"))?;
            total = total.checked_add(weight).ok_or("the weights are too large")?;
            weights.push((status, weight));
        }
        if total == 0 {
            return Err("every weight is zero".to_owned());
        }
        Ok(Self { weights, total })
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (status, weight)) in self.weights.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{}={weight}", status.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_falls_to_the_status_with_its_share() {
        let mix: Mix = "created=2,refunded=0,paid=1".parse().unwrap();
        assert_eq!(mix.total(), 3);
        assert_eq!([0, 1, 2].map(|number| mix.pick(number)), [Status::Created, Status::Created, Status::Paid]);
        assert_eq!(mix.to_string(), "created=2,refunded=0,paid=1");
    }

    #[test]
    fn a_mix_that_makes_no_sense_is_refused_with_a_reason() {
        for (text, reason) in [
            ("", "STATUS=WEIGHT"),
            ("created", "STATUS=WEIGHT"),
            ("cancelled=1", "canceled"),
            ("created=1,created=2", "twice"),
            ("created=-1", "whole number"),
            ("created=0", "zero"),
            ("created=4294967295,paid=1", "too large"),
        ] {
            let error = text.parse::<Mix>().unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
