"""Write the files of a deployment, and pipelines that build and deploy it."""
