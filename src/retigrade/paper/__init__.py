"""The publication: what it printed, whether that adds up, and its protocol run again beside an honest one.

Huynh, Do, Huynh, Tran and Tran, "Classification of Stages Diabetic Retinopathy Using MobileNetV2 Model",
Ho Chi Minh City University of Technology.
"""
