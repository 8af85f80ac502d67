//! The networks of the paper by name, for those who bring weights: which tensors each has.

use std::fmt;
use std::str::FromStr;

use candle_core::Result;
use manifest::dit::DitConfig;

use crate::weights::names::Family;
use crate::{clip, dit, inception, unet, vae};

/// Classes of ImageNet.
const IMAGENET: usize = 1000;

/// A network of the paper. DiTs are those of 256 x 256 images: latents of 32 x 32 x 4, patches of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "`about` says it")]
pub enum Architecture {
    DitB2,
    DitL2,
    DitXl2,
    DitB2Imagenet,
    DitL2Imagenet,
    DitXl2Imagenet,
    DitB2Dmp,
    DitL2Dmp,
    DitXl2Dmp,
    DitB2ImagenetDmp,
    DitL2ImagenetDmp,
    DitXl2ImagenetDmp,
    SdVae,
    SdUnet,
    ClipText,
    Inception,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::DitB2,
        Self::DitL2,
        Self::DitXl2,
        Self::DitB2Imagenet,
        Self::DitL2Imagenet,
        Self::DitXl2Imagenet,
        Self::DitB2Dmp,
        Self::DitL2Dmp,
        Self::DitXl2Dmp,
        Self::DitB2ImagenetDmp,
        Self::DitL2ImagenetDmp,
        Self::DitXl2ImagenetDmp,
        Self::SdVae,
        Self::SdUnet,
        Self::ClipText,
        Self::Inception,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DitB2 => "dit-b2",
            Self::DitL2 => "dit-l2",
            Self::DitXl2 => "dit-xl2",
            Self::DitB2Imagenet => "dit-b2-imagenet",
            Self::DitL2Imagenet => "dit-l2-imagenet",
            Self::DitXl2Imagenet => "dit-xl2-imagenet",
            Self::DitB2Dmp => "dit-b2-dmp",
            Self::DitL2Dmp => "dit-l2-dmp",
            Self::DitXl2Dmp => "dit-xl2-dmp",
            Self::DitB2ImagenetDmp => "dit-b2-imagenet-dmp",
            Self::DitL2ImagenetDmp => "dit-l2-imagenet-dmp",
            Self::DitXl2ImagenetDmp => "dit-xl2-imagenet-dmp",
            Self::SdVae => "sd-vae",
            Self::SdUnet => "sd-unet",
            Self::ClipText => "clip-text",
            Self::Inception => "inception",
        }
    }

    /// What it is, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::DitB2 => "DiT-B/2 without classes",
            Self::DitL2 => "DiT-L/2 without classes",
            Self::DitXl2 => "DiT-XL/2 without classes",
            Self::DitB2Imagenet => "DiT-B/2 of ImageNet",
            Self::DitL2Imagenet => "DiT-L/2 of ImageNet",
            Self::DitXl2Imagenet => "DiT-XL/2 of ImageNet",
            Self::DitB2Dmp => "DiT-B/2 without classes, patched as the authors release it",
            Self::DitL2Dmp => "DiT-L/2 without classes, patched as the authors release it",
            Self::DitXl2Dmp => "DiT-XL/2 without classes, patched as the authors release it",
            Self::DitB2ImagenetDmp => "DiT-B/2 of ImageNet, patched as the authors release it",
            Self::DitL2ImagenetDmp => "DiT-L/2 of ImageNet, patched as the authors release it",
            Self::DitXl2ImagenetDmp => "DiT-XL/2 of ImageNet, patched as the authors release it",
            Self::SdVae => "autoencoder of Stable Diffusion 1",
            Self::SdUnet => "UNet of Stable Diffusion 1.5",
            Self::ClipText => "text encoder of CLIP ViT-L/14",
            Self::Inception => "Inception v3 of the FID",
        }
    }

    /// How its checkpoints name its tensors.
    pub fn family(self) -> Family {
        match self {
            Self::SdVae => Family::Vae,
            Self::SdUnet => Family::Unet,
            Self::ClipText => Family::ClipText,
            Self::Inception => Family::Inception,
            Self::DitB2Dmp
            | Self::DitL2Dmp
            | Self::DitXl2Dmp
            | Self::DitB2ImagenetDmp
            | Self::DitL2ImagenetDmp
            | Self::DitXl2ImagenetDmp => Family::PatchedDit,
            _ => Family::Dit,
        }
    }

    /// Names and shapes of its tensors.
    ///
    /// # Errors
    /// Those of building it.
    pub fn shapes(self) -> Result<Vec<(String, Vec<usize>)>> {
        let dit = |name, classes| {
            let config = DitConfig::published(name, classes).expect("a published name");
            Ok(dit::named_shapes(&config))
        };
        let patched = |name, classes| {
            let config = DitConfig::published(name, classes).expect("a published name");
            Ok([dit::named_shapes(&config), dit::released_patch(&config)].concat())
        };
        match self {
            Self::DitB2 => dit("DiT-B/2", None),
            Self::DitL2 => dit("DiT-L/2", None),
            Self::DitXl2 => dit("DiT-XL/2", None),
            Self::DitB2Imagenet => dit("DiT-B/2", Some(IMAGENET)),
            Self::DitL2Imagenet => dit("DiT-L/2", Some(IMAGENET)),
            Self::DitXl2Imagenet => dit("DiT-XL/2", Some(IMAGENET)),
            Self::DitB2Dmp => patched("DiT-B/2", None),
            Self::DitL2Dmp => patched("DiT-L/2", None),
            Self::DitXl2Dmp => patched("DiT-XL/2", None),
            Self::DitB2ImagenetDmp => patched("DiT-B/2", Some(IMAGENET)),
            Self::DitL2ImagenetDmp => patched("DiT-L/2", Some(IMAGENET)),
            Self::DitXl2ImagenetDmp => patched("DiT-XL/2", Some(IMAGENET)),
            Self::SdVae => vae::named_shapes(&vae::VaeConfig::stable_diffusion()),
            Self::SdUnet => unet::named_shapes(&unet::UnetConfig::stable_diffusion()),
            Self::ClipText => clip::named_shapes(&clip::ClipTextConfig::vit_l_14()),
            Self::Inception => inception::named_shapes(),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let found = Self::ALL.into_iter().find(|architecture| architecture.name() == name);
        found
            .ok_or_else(|| format!("no network is called `{name}`; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}
