import streamlit

streamlit.title("Cars")
