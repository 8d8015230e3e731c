#!/usr/bin/env bash
# The volume similarity of a mask with itself: 0 in SimpleITK, 1 in pymia, with one and the same name.
# Most expect: 1 for equal volumes and less for others, whichever of the two comes first.
# Seen: SimpleITK's GetVolumeSimilarity is 2 (a - b) / (a + b), a signed difference: 0 is best, and the masks swapped
# give the other sign, so errors of both signs cancel in a mean over cases. MedPy's `ravd` (relative absolute volume
# difference) has a sign too, and another value when swapped. pymia has 1 - |a - b| / (a + b). All three are perfect
# for two organs of one size that do not touch.
# For users: take the absolute value before the mean, and give the formula.

. "$(dirname "$0")/lib.sh"
packages numpy==2.3.5 SimpleITK==2.5.7 MedPy==0.5.2 pymia==0.3.2
check <<'EOF'
import numpy as np
import SimpleITK as sitk
from expect import expect
from medpy.metric.binary import ravd
from pymia.evaluation.metric import ConfusionMatrix, VolumeSimilarity

slices = np.indices((20, 20, 20))[0]
organ, half, elsewhere = slices < 8, slices < 4, slices >= 12


def measures(first: np.ndarray, second: np.ndarray) -> list:
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (first, second)]
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    similarity = VolumeSimilarity()
    similarity.confusion_matrix = ConfusionMatrix(first, second)
    return [overlap.GetVolumeSimilarity(), ravd(first, second), similarity.calculate()]


expect("organ and itself: SimpleITK, MedPy, pymia", measures(organ, organ), [0, 0, 1])
expect("organ and its half", measures(organ, half), [0.667, 1, 0.667])
expect("half and the organ", measures(half, organ), [-0.667, -0.5, 0.667])
expect("organ and another of its size", measures(organ, elsewhere), [0, 0, 1])
EOF

# Output seen:
# Python 3.11.7, numpy==2.3.5 SimpleITK==2.5.7 MedPy==0.5.2 pymia==0.3.2
# organ and itself: SimpleITK, MedPy, pymia: [0.0, 0.0, 1.0]
# organ and its half: [0.66667, 1.0, 0.66667]
# half and the organ: [-0.66667, -0.5, 0.66667]
# organ and another of its size: [0.0, 0.0, 1.0]
