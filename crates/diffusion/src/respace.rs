//! Which timesteps of a process are kept when it is run in fewer steps.

use std::str::FromStr;

use crate::Error;

/// A rule that picks timesteps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// The process is cut into as many sections as there are counts (the first ones one step longer where it does not
    /// divide), and so many steps are spread evenly over each: `250`, `10,15,20`.
    Sections(Vec<usize>),
    /// Every n-th timestep from 0, for the n that keeps this many (DDIM): `ddim50`.
    Strided(usize),
    /// `1 + i * (T / n)` for `n` steps, and timestep 0, where the last of them ends: Stable Diffusion's "leading" spacing
    /// with an offset of 1, which PNDM runs on. It has no text form.
    Leading(usize),
}

impl FromStr for Spacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let count = |digits: &str| digits.trim().parse::<usize>().map_err(|_| Error::Syntax(text.to_owned()));
        match text.strip_prefix("ddim") {
            Some(digits) => count(digits).map(Self::Strided),
            None => text.split(',').map(count).collect::<Result<_, _>>().map(Self::Sections),
        }
    }
}

impl Spacing {
    /// The kept timesteps of `0..timesteps`, rising.
    pub fn timesteps(&self, timesteps: usize) -> Result<Vec<usize>, Error> {
        match self {
            Self::Strided(wanted) => {
                let stride = (1..timesteps).find(|&n| timesteps.div_ceil(n) == *wanted);
                let stride = stride.ok_or(Error::Stride { timesteps, wanted: *wanted })?;
                Ok((0..timesteps).step_by(stride).collect())
            }
            Self::Leading(wanted) => {
                let available = timesteps.saturating_sub(1);
                if *wanted == 0 || *wanted > available {
                    return Err(Error::Section { wanted: *wanted, available });
                }
                let stride = timesteps / wanted;
                Ok(std::iter::once(0).chain((0..*wanted).map(|i| 1 + i * stride)).collect())
            }
            Self::Sections(counts) => {
                let mut kept = Vec::with_capacity(counts.iter().sum());
                let mut start = 0;
                for (i, &wanted) in counts.iter().enumerate() {
                    let available = timesteps / counts.len() + usize::from(i < timesteps % counts.len());
                    if wanted == 0 || wanted > available {
                        return Err(Error::Section { wanted, available });
                    }
                    // The stride is added up, and halves go to even, as the reference's Python does.
                    let stride = if wanted == 1 { 1.0 } else { (available - 1) as f64 / (wanted - 1) as f64 };
                    let mut at = 0.0_f64;
                    for _ in 0..wanted {
                        kept.push(start + at.round_ties_even() as usize);
                        at += stride;
                    }
                    start += available;
                }
                Ok(kept)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str, timesteps: usize) -> Result<Vec<usize>, Error> {
        text.parse::<Spacing>()?.timesteps(timesteps)
    }

    #[test]
    fn sections_and_strides() {
        assert_eq!(kept("4", 10).unwrap(), [0, 3, 6, 9]);
        assert_eq!(kept("3", 10).unwrap(), [0, 4, 9], "4.5 goes to the even 4");
        assert_eq!(kept("2, 1,2", 8).unwrap(), [0, 2, 3, 6, 7], "sections of 3, 3 and 2");
        assert_eq!(kept("10", 10).unwrap(), (0..10).collect::<Vec<_>>());
        assert_eq!(kept("ddim5", 10).unwrap(), [0, 2, 4, 6, 8]);
        assert_eq!(kept("ddim4", 10).unwrap(), [0, 3, 6, 9]);
    }

    #[test]
    fn leading_steps_end_at_timestep_0() {
        let leading = |steps, timesteps| Spacing::Leading(steps).timesteps(timesteps);
        assert_eq!(leading(3, 10).unwrap(), [0, 1, 4, 7]);
        assert_eq!(leading(9, 10).unwrap(), (0..10).collect::<Vec<_>>());
        assert_eq!(leading(1, 10).unwrap(), [0, 1]);
        for (wanted, timesteps, available) in [(10, 10, 9), (0, 10, 9), (1, 1, 0), (1, 0, 0)] {
            assert_eq!(leading(wanted, timesteps), Err(Error::Section { wanted, available }));
        }
    }

    #[test]
    fn impossible_spacings_are_refused() {
        assert_eq!(kept("ddim7", 10), Err(Error::Stride { timesteps: 10, wanted: 7 }));
        assert_eq!(kept("ddim0", 10), Err(Error::Stride { timesteps: 10, wanted: 0 }));
        assert_eq!(kept("5,6", 10), Err(Error::Section { wanted: 6, available: 5 }));
        assert_eq!(kept("0", 10), Err(Error::Section { wanted: 0, available: 10 }));
        for text in ["", "ddim", "10,", "-3", "1.5", "fast27"] {
            assert_eq!(kept(text, 10), Err(Error::Syntax(text.to_owned())));
        }
    }
}
