import os

import onnxruntime
from fastapi import FastAPI

app = FastAPI()
session = onnxruntime.InferenceSession(os.environ["MODEL_PATH"])
