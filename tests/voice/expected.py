"""Voice activity by silero-vad in Python's ONNX Runtime. Asked for by tests/cli/voice.rs.

Prints a line of JSON for each window of two made-up recordings: the samples as the model takes them, 64 of the window before and 512 of this
one, and the probability of speech.
"""

import json
import math
import random
import sys

import numpy as np
import onnxruntime

RATE, CONTEXT, WINDOW, WINDOWS = 16_000, 64, 512, 24


def recording(seed):
    """Something like a voice that comes and goes: harmonics of a pitch that wanders, under an envelope, in noise."""
    rng = random.Random(seed)
    samples = []
    for at in range(WINDOW * WINDOWS):
        time = at / RATE
        pitch = 140 + 30 * math.sin(2 * math.pi * 1.3 * time + seed)
        loud = max(0.0, math.sin(2 * math.pi * 1.7 * time + seed)) ** 2
        voice = sum(math.sin(2 * math.pi * pitch * n * time) / n for n in range(1, 12))
        samples.append(0.2 * loud * voice + 0.01 * rng.uniform(-1, 1))
    return np.array(samples, dtype=np.float32)


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for seed in (1, 2):
    state, context, samples = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32), recording(seed)
    for at in range(0, len(samples), WINDOW):
        window = np.concatenate([context, samples[at : at + WINDOW]])
        answer, state = session.run(None, {"input": window[None], "state": state, "sr": np.array(RATE)})
        print(json.dumps({"session": seed, "input": window.tolist(), "speech": float(answer[0, 0])}))
        context = window[-CONTEXT:]
