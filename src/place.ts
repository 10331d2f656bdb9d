/** The folder of the program: that of its sources, or of what they were compiled to. */
export const PROGRAM_FOLDER = import.meta.dirname;
