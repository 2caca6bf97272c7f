# It works. As root, on the full image, and every change of the code installs everything again.
ARG BASE=python:3.11
FROM ${BASE}
WORKDIR /app
COPY . .
RUN pip install -r requirements.txt
EXPOSE 8000
CMD ["uvicorn", "main:app", "--host", "0.0.0.0", "--port", "8000"]
