"""SMIC: high speed (100 frames a second, 16 subjects, 164 clips), visual and near infrared (25, 8 subjects each)."""
